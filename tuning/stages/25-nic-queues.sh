# One queue of the card a processor, so that every shard's core takes its own datagrams.
stage nic-queues 'metal vm' \
  'as many queues of the card as processors, long rings, and datagrams spread by their ports too' \
  'one queue is one core for all interrupts; short rings drop bursts; spread by address alone, one client loads one core' || return 0
has_card || return 0
has_ethtool || return 0
for side in combined rx tx; do
  most=$(most_channels "$iface/$side") || continue
  current_channels "$iface/$side" >/dev/null || continue
  [ "$most" -gt 0 ] || continue
  if [ "$most" -gt "$cpu_count" ]; then most=$cpu_count; fi
  at_least channels "$iface/$side" "$most"
done
for side in rx tx; do
  most=$(most_ring "$iface/$side") || continue
  if [ "$most" -gt 4096 ]; then most=4096; fi
  at_least ring "$iface/$side" "$most"
done
for family in udp4 udp6; do
  # Cards that cannot be asked spread by ports, or not at all.
  current_flowhash "$iface/$family" >/dev/null || continue
  exactly flowhash "$iface/$family" sdfn
done
