# A card gathers datagrams before it speaks. A little is right: each interrupt costs a core some
# microseconds. What adapts by itself is meant for bulk transfers and makes latency wander.
stage coalescing-offloads 'metal vm' \
  'how long the card gathers before it interrupts, and what it joins together' \
  'adaptive coalescing holds lone datagrams for up to 100 us; joining received packets helps bulk TCP only' || return 0
has_card || return 0
has_ethtool || return 0
if current_coalesce "$iface/adaptive-rx" >/dev/null; then exactly coalesce "$iface/adaptive-rx" off; fi
# A guess, not measured: about five datagrams at full load of one queue.
if current_coalesce "$iface/rx-usecs" >/dev/null; then exactly coalesce "$iface/rx-usecs" 8; fi
for feature in large-receive-offload rx-gro-hw; do
  if current_feature "$iface/$feature" >/dev/null; then exactly feature "$iface/$feature" off; fi
done
for feature in rx-checksumming tx-checksumming; do
  if current_feature "$iface/$feature" >/dev/null; then exactly feature "$iface/$feature" on; fi
done
