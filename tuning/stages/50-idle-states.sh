# Deep sleep takes long to wake from: up to some hundred microseconds.
stage idle-states 'metal' \
  'how deep a core that has nothing to do may sleep' \
  'states that take more than 10 us to leave delay the first datagram after a pause; costs power and heat' || return 0
found=no
for cpu in $cpus; do
  for sleep_state in "$root/sys/devices/system/cpu/cpu$cpu/cpuidle"/state*; do
    [ -e "$sleep_state/latency" ] || continue
    found=yes
    [ "$(first_line "$sleep_state/latency")" -gt 10 ] || continue
    exactly file "${sleep_state#"$root"}/disable" 1
  done
done
[ "$found" = yes ] || emit missing cpuidle absent 'states that can be disabled' 'the kernel lets this machine sleep in one way only'
