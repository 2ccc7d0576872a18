# Connections that are complete and not yet accepted. beast asks for 4,096 a listener.
stage accept-queue 'metal vm container fargate' \
  'connections that may wait to be accepted, and those that are half open' \
  'a thousand clients that come back together after a restart must not be turned away' || return 0
at_least sysctl net.core.somaxconn 4096
at_least sysctl net.ipv4.tcp_max_syn_backlog 4096
