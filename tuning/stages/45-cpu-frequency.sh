# A core that slows down between bursts answers the next one late.
stage cpu-frequency 'metal' \
  'the governor that chooses the frequency of each core' \
  'powersave and ondemand need milliseconds to speed up; an answer takes two microseconds' || return 0
found=no
for cpu in $cpus; do
  file=/sys/devices/system/cpu/cpu$cpu/cpufreq/scaling_governor
  [ -e "$root$file" ] || continue
  found=yes
  exactly file "$file" performance
done
[ "$found" = yes ] || emit missing scaling_governor absent performance 'the firmware or a hypervisor chooses the frequency'
