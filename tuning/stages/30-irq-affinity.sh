# Queue n interrupts processor n. irqbalance would move them again.
stage irq-affinity 'metal vm' \
  'the interrupt of each queue on a processor of its own' \
  'the core that is interrupted is the one whose shard answers; moved interrupts make latency wander' || return 0
has_card || return 0
if current_service irqbalance >/dev/null; then exactly service irqbalance inactive; fi
# The interrupts of the card, or of the bus device behind it (virtio), in the order of their numbers.
irqs='' lone=''
for folder in "$root/sys/class/net/$iface/device/msi_irqs" "$root/sys/class/net/$iface/device/../msi_irqs"; do
  [ -d "$folder" ] || continue
  # shellcheck disable=SC2012
  for irq in $(ls "$folder" | sort -n); do
    name=$(awk -v irq="$irq:" '$1 == irq { print $NF }' "$root/proc/interrupts" 2>/dev/null)
    case "$name" in
      '' | *config* | *mgmnt* | *async* | *cmd* | *misc* | *fdir* | *ctrl* | *control*) ;;
      # The state of the link, where queues have interrupts of their own.
      "$iface") lone=" $irq/$name" ;;
      *) irqs="$irqs $irq/$name" ;;
    esac
  done
  break
done
irqs=${irqs:-$lone}
if [ -z "$irqs" ]; then
  emit skipped '' '' '' "$iface has no interrupts of its own to place"
  return 0
fi
count_all=0 count_in=0 count_out=0
for pair in $irqs; do
  # Receiving and sending interrupts of one queue belong on one core, so each side is counted alone.
  case "${pair#*/}" in
    *input* | *-rx-* | *-Rx-*) turn=$count_in count_in=$((count_in + 1)) ;;
    *output* | *-tx-* | *-Tx-[0-9]*) turn=$count_out count_out=$((count_out + 1)) ;;
    *) turn=$count_all count_all=$((count_all + 1)) ;;
  esac
  cpu=$(echo "$cpus" | awk -v turn="$turn" '{ print $(turn % NF + 1) }')
  exactly file "/proc/irq/${pair%%/*}/smp_affinity_list" "$cpu"
done
