# A boot decides it: cores that the tick, callbacks of the kernel and managed interrupts leave alone.
# Without the word `domain` of isolcpus: with it everything that init starts, beast included, would be
# confined to the processors that are left, and shards could have none of their own.
stage isolated-cores 'metal' \
  'cores of shards without the tick, deferred work of the kernel, and interrupts that cards spread by themselves' \
  'the tick interrupts a busy loop 250 to 1,000 times a second, and whatever else runs on a core of a shard is a pause of all its answers; other programs are kept away by their own affinity' || return 0
if [ "$cpu_count" -lt 4 ]; then
  emit skipped '' '' '' 'with fewer than four processors none can be spared for the rest of the system'
  return 0
fi
# The first processor keeps the system's own work.
isolated=$(echo "$cpus" | awk '{ for (f = 2; f <= NF; f++) printf "%s%s", (f > 2 ? "," : ""), $f }')
wanted="isolcpus=managed_irq,$isolated nohz_full=$isolated rcu_nocbs=$isolated"
line=$(first_line "$root/proc/cmdline")
enough=yes
for word in $wanted; do
  case " $line " in *" $word "*) ;; *) enough=no ;; esac
done
if [ -r "$root/proc/cmdline" ]; then
  by_hand 'the kernel command line' "${line:-empty}" "$wanted" "$enough" \
    'beast host apply --stage isolated-cores, then update-grub and restart the machine (without GRUB: add these words to its command line)'
else
  absent file 'the kernel command line' "$wanted"
fi
if [ -d "$root/etc/default/grub.d" ]; then
  # The dollar is for GRUB.
  # shellcheck disable=SC2016
  exactly conf /etc/default/grub.d/60-beast.cfg \
    "$(printf 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX %s"\n' "$wanted" | base64 | tr -d '\n')"
fi
