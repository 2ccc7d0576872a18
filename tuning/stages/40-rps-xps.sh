# Where the card has too few queues the kernel spreads what comes in (RPS); where it has enough, that
# would only hand datagrams from core to core. Each queue to send by belongs to one core (XPS).
stage rps-xps 'metal vm' \
  'which processors take over received datagrams, and which queue each sends by' \
  'with one queue one core does the network work of all; with a queue a core, handing over costs a wake-up' || return 0
has_card || return 0
queues=0
for queue in "$root/sys/class/net/$iface/queues"/rx-*; do
  [ -e "$queue/rps_cpus" ] && queues=$((queues + 1))
done
if [ "$queues" -ge "$cpu_count" ]; then mask=0; else mask=$(cpu_mask "$cpus"); fi
for queue in "$root/sys/class/net/$iface/queues"/rx-*; do
  [ -e "$queue/rps_cpus" ] || continue
  exactly mask "${queue#"$root"}/rps_cpus" "$mask"
done
# shellcheck disable=SC2012
sending=$(ls -d "$root/sys/class/net/$iface/queues"/tx-* 2>/dev/null | wc -l)
for queue in "$root/sys/class/net/$iface/queues"/tx-*; do
  # A single queue is everybody's, and the kernel refuses to say so.
  [ "$sending" -gt 1 ] || continue
  [ -e "$queue/xps_cpus" ] || continue
  number=${queue##*tx-}
  mine=$(echo "$cpus" | awk -v queue="$number" -v queues="$sending" '{ for (f = 1; f <= NF; f++) if ((f - 1) % queues == queue) printf "%s ", $f }')
  [ -n "$mine" ] || continue
  # shellcheck disable=SC2086
  exactly mask "${queue#"$root"}/xps_cpus" "$(cpu_mask $mine)"
done
