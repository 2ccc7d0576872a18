# Connection tracking looks up and locks a table for every datagram. Only where it is at work.
# A firewall that lets in only what is "established" must accept "untracked" on these ports too, and
# ports that are forwarded to a container need tracking: leave this stage out there.
stage conntrack 'metal vm' \
  'datagrams and connections of our ports pass connection tracking by' \
  'tracking costs about a microsecond a datagram and drops all when its table is full' || return 0
# Where the kernel's settings are hidden nobody can say whether it is at work.
if [ ! -d "$root/proc/sys/net" ]; then
  absent file 'connection tracking' 'nothing, or rules that pass it by'
  return 0
fi
if [ ! -e "$root/proc/sys/net/netfilter/nf_conntrack_max" ]; then
  emit ok 'connection tracking' 'not at work here' 'nothing' ''
  return 0
fi
if ! found=$(current_nft beast_notrack); then
  emit missing nft 'not installed' 'the command' 'apt-get install nftables'
  return 0
fi
rules="table inet beast_notrack {
	chain prerouting {
		type filter hook prerouting priority raw; policy accept;
		udp dport $udp_port notrack
		tcp dport $http_port notrack
	}
	chain output {
		type filter hook output priority raw; policy accept;
		udp sport $udp_port notrack
		tcp sport $http_port notrack
	}
}"
enough=no
# nft prints rules its own way, so what they say is looked for and not their spelling.
if [ "$found" != absent ]; then
  said=$(printf '%s' "$found" | base64 -d | grep -cE "udp [ds]port $udp_port notrack|tcp [ds]port $http_port notrack")
  if [ "$said" -eq 4 ]; then enough=yes; fi
fi
settle nft beast_notrack "$found" "$(printf '%s\n' "$rules" | base64 | tr -d '\n')" "$enough" \
  "rules that do not track UDP $udp_port and TCP $http_port"
