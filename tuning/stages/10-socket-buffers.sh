# What a burst waits in until a shard takes it. beast asks for 32 MiB a socket; the kernel's usual limit
# is 208 KiB, some 250 datagrams, which 0.5 ms of full load fill.
stage socket-buffers 'metal vm container' \
  'the largest buffers a socket may ask for, and the queue between card and sockets' \
  'with the usual 208 KiB a pause of half a millisecond drops datagrams; 32 MiB hold a third of a second' || return 0
at_least sysctl net.core.rmem_max 33554432
at_least sysctl net.core.wmem_max 33554432
# Datagrams that wait for the kernel itself, per processor; only used without NAPI and with RPS.
at_least sysctl net.core.netdev_max_backlog 16384
# Datagrams one interrupt may bring before others get their turn. A guess, not measured.
at_least sysctl net.core.netdev_budget 600
