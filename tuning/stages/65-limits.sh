# io_uring pins its buffers; the portable engine needs a descriptor a connection. The unit of systemd/ has
# both; this is for those who start beast from a shell.
stage limits 'metal vm container fargate' \
  'memory that may be locked and descriptors that may be open' \
  'with too little of the first io_uring is refused and epoll steps in; of the second, connections are turned away' || return 0
case "$environment" in
  container) raise='start the container with --ulimit memlock=-1 --ulimit nofile=1048576' ;;
  fargate) raise='ulimits of the task definition: {"name": "nofile", "softLimit": 65535, "hardLimit": 65535}' ;;
  *) raise='log in anew after beast host apply --stage limits; systemd/beast.service brings its own' ;;
esac
# Fargate refuses io_uring whatever may be locked.
if [ "$environment" != fargate ]; then
  locked=$(awk '/^Max locked memory/ { print $5 }' "$root/proc/self/limits" 2>/dev/null)
  case "$locked" in
    unlimited) enough=yes ;;
    *) if [ "${locked:-0}" -ge 67108864 ]; then enough=yes; else enough=no; fi ;;
  esac
  by_hand 'locked memory of this process' "${locked:-unknown} bytes" 'at least 67108864 bytes' "$enough" "$raise"
fi
files=$(awk '/^Max open files/ { print $5 }' "$root/proc/self/limits" 2>/dev/null)
case "$files" in
  unlimited) enough=yes ;;
  *) if [ "${files:-0}" -ge 20000 ]; then enough=yes; else enough=no; fi ;;
esac
by_hand 'open descriptors of this process, hard limit' "${files:-unknown}" 'at least 20000' "$enough" "$raise"
case "$environment" in metal | vm) ;; *) return 0 ;; esac
if [ -d "$root/etc/security/limits.d" ]; then
  exactly conf /etc/security/limits.d/60-beast.conf \
    "$(printf '# Written by beast host apply, removed by beast host undo.\n* - memlock unlimited\n* - nofile 1048576\nroot - memlock unlimited\nroot - nofile 1048576\n' | base64 | tr -d '\n')"
fi
