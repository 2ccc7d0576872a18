# A processor that is spinning anyway (spin_us) may ask the card instead of waiting for its interrupt.
# The values are guesses, not measured: the machine beast was built on has no such card.
stage busy-polling 'metal' \
  'sockets ask the card for datagrams instead of waiting for its interrupt' \
  'saves the interrupt and its switch, some microseconds of a lone request; costs power, so only where spinning is wanted' || return 0
at_least sysctl net.core.busy_poll 50
at_least sysctl net.core.busy_read 50
has_card || return 0
# Interrupts stay off for so many empty rounds of so many nanoseconds: at most 20 us are added to a
# datagram that nobody polls for.
at_least file "/sys/class/net/$iface/napi_defer_hard_irqs" 2
at_least file "/sys/class/net/$iface/gro_flush_timeout" 20000
