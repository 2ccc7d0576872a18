#!/bin/sh
# Checks, applies and undoes the settings of a machine that beast answers faster with.
#
#   tuning/tune.sh check|apply|undo|plan|list [options]      (or: beast host …, the same script)
#
# Each file of stages/ is one setting or a few that belong together: what it is, where it belongs,
# why, and the values. This file knows how to read, change and restore the kinds of things they name.
#
# What was there is written to a state file, and that file is on the disk, before anything is changed;
# `undo` puts back exactly what the file says, also after a crash half-way.
set -u
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
tab=$(printf '\t')
newline='
'
here=$(dirname -- "$0")

usage() {
  cat <<'END'
usage: check|apply|undo|plan|list [options]

  check   show what is found, what is needed and the command that cures it; exit 1 when something differs
  apply   change what differs, after writing down what was there (needs root)
  undo    put back what was there (needs root)
  plan    propose shards, pinning, spinning and buffers for this machine, with reasons
  list    show every stage: what it is, where it belongs, why

  --json               print one JSON object
  --stage NAME[,NAME]  only these stages
  --as KIND            take this for metal, vm, container or fargate, whatever it looks like
  --iface NAME         the network card; default: the one of the default route
  --udp-port N         port of the UDP protocols, default 2679
  --http-port N        port of HTTP, default 8080
  --state FILE         what was there before; default /var/lib/beast-tuning/state
  --root FOLDER        a tree to read and change in place of / (for tests)
END
}

die() {
  echo "error: $1" >&2
  echo "  what to do: $2" >&2
  exit "${3:-1}"
}

# ---- The machine --------------------------------------------------------------------------------

# first_line FILE: its first line, or nothing.
first_line() {
  line=
  # A failed read still leaves what came before the end of the file.
  [ -r "$1" ] && { IFS= read -r line <"$1" || :; } 2>/dev/null
  printf '%s' "$line"
}

find_environment() {
  if [ -n "$environment" ]; then
    environment_why='as told by --as'
  elif [ -z "$root" ] && { [ -n "${ECS_CONTAINER_METADATA_URI_V4:-}" ] || [ "${AWS_EXECUTION_ENV:-}" = AWS_ECS_FARGATE ]; } &&
    [ "${AWS_EXECUTION_ENV:-AWS_ECS_FARGATE}" = AWS_ECS_FARGATE ]; then
    environment=fargate environment_why='the environment names AWS Fargate'
  elif [ -n "${KUBERNETES_SERVICE_HOST:-}" ]; then
    environment=container environment_why='the environment names Kubernetes'
  elif [ -e "$root/run/.containerenv" ] || [ -e "$root/run/systemd/container" ]; then
    environment=container environment_why='/run says so'
  elif { tr '\0' '\n' <"$root/proc/1/environ"; } 2>/dev/null | grep -q '^container='; then
    environment=container environment_why='the first process was told so'
  elif grep -qE 'docker|kubepods|containerd|libpod|lxc' "$root/proc/1/cgroup" 2>/dev/null; then
    environment=container environment_why='the control group of the first process'
  elif [ -e "$root/.dockerenv" ] && grep -q ' / / .* - overlay ' "$root/proc/1/mountinfo" 2>/dev/null; then
    environment=container environment_why='/.dockerenv, on a file system of layers'
  elif grep -qwE '^flags.*hypervisor' "$root/proc/cpuinfo" 2>/dev/null; then
    environment=vm environment_why='the processor reports a hypervisor'
  elif grep -qiE 'qemu|kvm|vmware|virtual|xen|bochs|google|amazon|ec2' "$root/sys/class/dmi/id/product_name" \
    "$root/sys/class/dmi/id/sys_vendor" 2>/dev/null &&
    ! grep -qi '\.metal' "$root/sys/class/dmi/id/product_name" 2>/dev/null; then
    environment=vm environment_why='the firmware names a hypervisor'
  else
    environment=metal environment_why='nothing speaks of a hypervisor or a container'
  fi
}

# expand_list LIST: "0-2,5" as "0 1 2 5".
expand_list() {
  printf '%s\n' "$1" | tr ',' '\n' | awk -F- 'NF { for (i = $1; i <= (NF > 1 ? $2 : $1); i++) printf "%s%d", n++ ? " " : "", i }'
}

# cpu_mask CPUS…: the mask as the kernel writes it, words of 32 bits from the highest.
cpu_mask() {
  printf '%s\n' "$*" | awk 'BEGIN { top = 0 } {
    for (f = 1; f <= NF; f++) { word[int($f / 32)] += 2 ^ ($f % 32); if (int($f / 32) > top) top = int($f / 32) }
    printf "%x", word[top]
    for (w = top - 1; w >= 0; w--) printf ",%08x", word[w]
  }'
}

find_machine() {
  find_environment
  allowed=$(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' "$root/proc/self/status" 2>/dev/null)
  cpus=$(expand_list "${allowed:-0}")
  cpu_count=$(echo "$cpus" | wc -w | tr -d ' ')
  if [ -z "$iface" ]; then
    iface=$(awk '$2 == "00000000" { print $1; exit }' "$root/proc/net/route" 2>/dev/null)
  fi
  boot=$(first_line "$root/proc/sys/kernel/random/boot_id")
}

# ---- Kinds of things: how each is read and set --------------------------------------------------

# Every kind has current_KIND TARGET, which prints one line or fails when there is no such thing; and
# put_KIND TARGET VALUE. What undo writes is what current_ printed.

current_sysctl() {
  current_file "/proc/sys/$(echo "$1" | tr . /)"
}
put_sysctl() {
  put_file "/proc/sys/$(echo "$1" | tr . /)" "$2"
}

current_file() {
  [ -e "$root$1" ] || return 1
  { tr '\t' ' ' <"$root$1" | head -n 1; } 2>/dev/null
}
put_file() {
  # Written by one write, as the kernel wants it; printf and not echo, which reads backslashes.
  { printf '%s\n' "$2" >"$root$1"; } 2>/dev/null
}

# A set of processors; leading zeros are how many processors there could be, and say nothing.
current_mask() {
  value=$(current_file "$1") || return 1
  printf '%s\n' "$value" | sed 's/^[0,]*//; s/^$/0/'
}
put_mask() {
  put_file "$1" "$2"
}

# A file whose value is the word in brackets.
current_choice() {
  [ -r "$root$1" ] || return 1
  sed -n 's/.*\[\([^]]*\)\].*/\1/p' "$root$1"
}
put_choice() {
  if [ -n "$root" ]; then
    # A plain file of a test's tree does not move the brackets by itself.
    sed "s/[][]//g; s/\<$2\>/[$2]/" "$root$1" >"$root$1.new" && mv "$root$1.new" "$root$1"
  else
    put_file "$1" "$2"
  fi
}

# A whole text file of ours, as base64; "absent" without it.
current_conf() {
  if [ -e "$root$1" ]; then base64 <"$root$1" | tr -d '\n'; else echo absent; fi
}
put_conf() {
  if [ "$2" = absent ]; then
    rm -f "$root$1"
  else
    mkdir -p "$(dirname "$root$1")" && printf '%s' "$2" | base64 -d >"$root$1.beast-new" &&
      mv "$root$1.beast-new" "$root$1" && sync "$root$1"
  fi
}

# Numbers of queues: CARD/combined, CARD/rx, CARD/tx.
current_channels() {
  ethtool -l "${1%/*}" 2>/dev/null | ethtool_now "${1#*/}"
}
put_channels() {
  ethtool -L "${1%/*}" "${1#*/}" "$2" >/dev/null 2>&1
}
most_channels() {
  ethtool -l "${1%/*}" 2>/dev/null | ethtool_most "${1#*/}"
}

# Lengths of the card's rings: CARD/rx, CARD/tx.
current_ring() {
  ethtool -g "${1%/*}" 2>/dev/null | ethtool_now "${1#*/}"
}
put_ring() {
  ethtool -G "${1%/*}" "${1#*/}" "$2" >/dev/null 2>&1
}
most_ring() {
  ethtool -g "${1%/*}" 2>/dev/null | ethtool_most "${1#*/}"
}

# "Combined: 4" stands twice: what is possible, then what is.
ethtool_now() {
  awk -v want="$1" -F: 'tolower($1) == want { value = $2; n++ } END { gsub(/[ \t]/, "", value); if (n < 2 || value == "n/a" || value == "") exit 1; print value }'
}
ethtool_most() {
  awk -v want="$1" -F: 'tolower($1) == want { gsub(/[ \t]/, "", $2); if ($2 == "n/a" || $2 == "") exit 1; print $2; exit }'
}

# When the card speaks up: CARD/rx-usecs, CARD/adaptive-rx.
current_coalesce() {
  ethtool -c "${1%/*}" 2>/dev/null | awk -v want="${1#*/}" '
    want ~ /^adaptive/ && /^Adaptive/ { value = want == "adaptive-rx" ? $3 : $5 }
    $1 == want ":" { value = $2 }
    END { if (value == "" || value == "n/a") exit 1; print value }'
}
put_coalesce() {
  ethtool -C "${1%/*}" "${1#*/}" "$2" >/dev/null 2>&1
}

# Offloads by their long names: CARD/large-receive-offload. What the card has fixed does not exist.
current_feature() {
  ethtool -k "${1%/*}" 2>/dev/null | awk -v want="${1#*/}:" '$1 == want && !/\[fixed\]/ { value = $2 } END { if (value == "") exit 1; print value }'
}
put_feature() {
  ethtool -K "${1%/*}" "${1#*/}" "$2" >/dev/null 2>&1
}

# What of a datagram decides its queue: CARD/udp4 as letters (s and d addresses, f and n ports).
current_flowhash() {
  ethtool -n "${1%/*}" rx-flow-hash "${1#*/}" 2>/dev/null | awk '
    /IP SA/ { s = "s" } /IP DA/ { d = "d" } /bytes 0 and 1/ { f = "f" } /bytes 2 and 3/ { n = "n" }
    END { if (s d f n == "") exit 1; print s d f n }'
}
put_flowhash() {
  ethtool -N "${1%/*}" rx-flow-hash "${1#*/}" "$2" >/dev/null 2>&1
}

# A table of nftables as base64 of its listing; "absent" without it.
current_nft() {
  command -v nft >/dev/null 2>&1 || return 1
  if nft list table inet "$1" >/dev/null 2>&1; then
    nft list table inet "$1" | base64 | tr -d '\n'
  else
    echo absent
  fi
}
put_nft() {
  if nft list table inet "$1" >/dev/null 2>&1; then nft delete table inet "$1" || return 1; fi
  [ "$2" = absent ] || printf '%s' "$2" | base64 -d | nft -f - 2>/dev/null
}

# A service of systemd: active or inactive.
current_service() {
  command -v systemctl >/dev/null 2>&1 && [ -d "$root/run/systemd/system" ] || return 1
  systemctl cat "$1" >/dev/null 2>&1 || return 1
  if systemctl is-active -q "$1"; then echo active; else echo inactive; fi
}
put_service() {
  if [ "$2" = active ]; then systemctl start "$1"; else systemctl stop "$1"; fi
}

# The command that does by hand what put_ does.
command_for() {
  case "$1" in
    sysctl) echo "sysctl -w $2=$3" ;;
    file | mask | choice) echo "echo $3 > $2" ;;
    channels) echo "ethtool -L ${2%/*} ${2#*/} $3" ;;
    ring) echo "ethtool -G ${2%/*} ${2#*/} $3" ;;
    coalesce) echo "ethtool -C ${2%/*} ${2#*/} $3" ;;
    feature) echo "ethtool -K ${2%/*} ${2#*/} $3" ;;
    flowhash) echo "ethtool -N ${2%/*} rx-flow-hash ${2#*/} $3" ;;
    service) if [ "$3" = active ]; then echo "systemctl start $2"; else echo "systemctl stop $2"; fi ;;
    *) echo "beast host apply --stage $stage" ;;
  esac
}

# Who can cure it, and how, from here.
cure_for() {
  case "$environment:$1:$2" in
    container:sysctl:net.ipv4.* | container:sysctl:net.core.somaxconn)
      echo "start the container with --sysctl $2=$3" ;;
    fargate:sysctl:*) echo "systemControls of the task definition: {\"namespace\": \"$2\", \"value\": \"$3\"}" ;;
    container:*) echo "on the host, as root: $(command_for "$1" "$2" "$3")" ;;
    *) command_for "$1" "$2" "$3" ;;
  esac
}

# Values that are files in base64 say little to a reader.
shown() {
  case "$1:$2" in
    *:absent) echo absent ;;
    conf:* | nft:*) echo 'other contents' ;;
    *) echo "$2" ;;
  esac
}

# ---- The state file ------------------------------------------------------------------------------

# One line a change: kind, target, what was there, boot. The last field is what makes a line whole.

lock_state() {
  mkdir -p "$(dirname "$state")" 2>/dev/null
  { : >>"$state.lock"; } 2>/dev/null ||
    die "$(dirname "$state") cannot be written, and what was there must be kept" "run as root, or name another file with --state" 2
  exec 9>"$state.lock"
  flock -n 9 || die "another tuning is at work on $state" "wait until it has ended"
}

# Drops what a crash left of a half line, and what a reboot has undone since.
repair_state() {
  [ -e "$state" ] || return 0
  if ! { awk -F "$tab" -v boot="$boot" 'NF == 5 && $5 == "." && ($1 == "conf" || $4 == boot)' "$state" >"$state.new" &&
    sync "$state.new" && mv "$state.new" "$state" && sync "$(dirname "$state")"; }; then
    die "$state cannot be rewritten" "see whether the disk is full"
  fi
}

is_recorded() {
  [ -e "$state" ] && awk -F "$tab" -v kind="$1" -v target="$2" '$1 == kind && $2 == target { found = 1 } END { exit !found }' "$state"
}

# record KIND TARGET VALUE: on the disk when this returns. What was there first is what counts.
record() {
  is_recorded "$1" "$2" && return 0
  fresh=no
  [ -e "$state" ] || fresh=yes
  if ! { printf '%s\t%s\t%s\t%s\t.\n' "$1" "$2" "$3" "$boot" >>"$state" && sync "$state" &&
    { [ "$fresh" = no ] || sync "$(dirname "$state")"; }; }; then
    die "$state cannot be written, so $2 was left alone" "see whether the disk is full"
  fi
}

# ---- What stages say -----------------------------------------------------------------------------

# stage NAME 'metal vm …' 'what it is' 'why': fails when this stage is not to run now.
stage() {
  stage=$1
  case ",$only," in
    ,, | *",$1,"*) ;;
    *) return 1 ;;
  esac
  seen=yes
  if [ "$action" = list ]; then
    emit_stage "$1" "$2" "$3" "$4"
    return 1
  fi
  begin_stage "$1" "$3"
  case " $2 " in
    *" $environment "*) return 0 ;;
  esac
  emit skipped '' '' '' "this is a $environment, and the stage is for: $2"
  return 1
}

# The card, or a word why the stages of the card do not run.
has_card() {
  if [ -z "$iface" ]; then
    emit skipped '' '' '' 'no card has a default route; name one with --iface'
    return 1
  fi
  if [ ! -e "$root/sys/class/net/$iface" ]; then
    emit skipped '' '' '' "there is no card $iface"
    return 1
  fi
}

has_ethtool() {
  command -v ethtool >/dev/null 2>&1 && return 0
  emit missing ethtool 'not installed' 'the command' 'apt-get install ethtool'
  return 1
}

# at_least KIND TARGET NUMBER; exactly KIND TARGET VALUE: what must be.
at_least() {
  if ! value=$("current_$1" "$2"); then absent "$1" "$2" "$3"; return 0; fi
  # A value beyond what shells count in is as good as without a limit.
  case "$value" in
    *[!0-9]* | '') enough=no ;;
    ??????????????????*) enough=yes ;;
    *) if [ "$value" -ge "$3" ]; then enough=yes; else enough=no; fi ;;
  esac
  settle "$1" "$2" "$value" "$3" "$enough" "at least $3"
}
exactly() {
  if ! value=$("current_$1" "$2"); then absent "$1" "$2" "$3"; return 0; fi
  if [ "$value" = "$3" ]; then enough=yes; else enough=no; fi
  settle "$1" "$2" "$value" "$3" "$enough" "$(shown "$1" "$3")"
}

absent() {
  emit missing "$2" absent "$3" 'this kernel or card does not have it, or it is not shown here'
}

# settle KIND TARGET FOUND VALUE ENOUGH NEEDED: says it, or changes it.
settle() {
  if [ "$5" = yes ]; then
    emit ok "$2" "$(shown "$1" "$3")" "$6" ''
  elif [ "$action" != apply ]; then
    emit differs "$2" "$(shown "$1" "$3")" "$6" "$(cure_for "$1" "$2" "$4")"
  else
    record "$1" "$2" "$3"
    if "put_$1" "$2" "$4" && after=$("current_$1" "$2") && { [ "$after" = "$4" ] || [ "$1" = nft ]; }; then
      emit applied "$2" "$(shown "$1" "$3")" "$6" ''
    else
      emit failed "$2" "$(shown "$1" "$3")" "$6" "$(cure_for "$1" "$2" "$4")"
    fi
  fi
}

# by_hand ITEM FOUND NEEDED ENOUGH CURE: what no command changes now, such as what a boot decides.
by_hand() {
  if [ "$4" = yes ]; then emit ok "$1" "$2" "$3" ''; else emit differs "$1" "$2" "$3" "$5"; fi
}

# ---- Output --------------------------------------------------------------------------------------

# Takes fields apart by tabs and makes them members of a JSON object.
json_object() {
  awk -F "$tab" '{
    for (f = 1; f <= NF; f += 2) {
      value = $(f + 1); gsub(/\\/, "\\\\", value); gsub(/"/, "\\\"", value); gsub(/[\001-\037]/, " ", value)
      printf "%s\"%s\":\"%s\"", f == 1 ? "{" : ",", $f, value
    }
    printf "}"
  }'
}

findings=
add_json() {
  findings="$findings${findings:+,$newline  }$(printf '%s\n' "$1" | json_object)"
}

begin_stage() {
  [ "$json" = yes ] || printf '\n%s: %s\n' "$1" "$2"
}

emit_stage() {
  if [ "$json" = yes ]; then
    add_json "stage$tab$1${tab}what$tab$3${tab}environments$tab$2${tab}why$tab$4"
  else
    printf '\n%s (%s)\n  what  %s\n  why   %s\n' "$1" "$2" "$3" "$4"
  fi
}

# emit STATUS ITEM FOUND NEEDED CURE
emit() {
  case "$1" in
    differs) differing=$((differing + 1)) ;;
    failed) failures=$((failures + 1)) ;;
    applied) changed=$((changed + 1)) ;;
  esac
  if [ "$json" = yes ]; then
    add_json "stage$tab$stage${tab}status$tab$1${tab}item$tab$2${tab}found$tab$3${tab}needed$tab$4${tab}cure$tab$5"
    return 0
  fi
  case "$1" in
    ok) printf '  ok       %s is %s\n' "$2" "$3" ;;
    differs) printf '  differs  %s is %s, needs %s\n           cure: %s\n' "$2" "$3" "$4" "$5" ;;
    applied) printf '  applied  %s was %s, now %s\n' "$2" "$3" "$4" ;;
    failed) printf '  failed   %s is %s, needs %s, and cannot be changed from here\n           cure: %s\n' "$2" "$3" "$4" "$5" ;;
    skipped) printf '  skipped  %s\n' "$5" ;;
    *) printf '  %-8s %s: %s\n' "$1" "$2" "$5" ;;
  esac
}

begin_output() {
  [ "$json" = yes ] && return 0
  echo "machine  $environment ($environment_why), CPUs ${allowed:-unknown}, card ${iface:-none}"
}

end_output() {
  [ "$json" = yes ] || return 0
  head=$(printf 'action\t%s\tenvironment\t%s\twhy\t%s\tcpus\t%s\tiface\t%s\n' "$action" "$environment" \
    "$environment_why" "$allowed" "$iface" | json_object)
  printf '%s,"%s":[\n  %s\n]}\n' "${head%\}}" "$1" "$findings"
}

# ---- Actions -------------------------------------------------------------------------------------

check_or_apply() {
  differing=0 failures=0 changed=0
  if [ "$action" = apply ]; then
    lock_state
    repair_state
  fi
  begin_output
  stages
  [ "$seen" = yes ] || die "there is no stage $only" "list shows them" 2
  end_output findings
  if [ "$json" = no ] && [ "$action" = check ]; then
    echo
    if [ "$differing" -eq 0 ]; then
      echo "nothing differs"
    else
      echo "$differing differ; 'apply' changes what can be changed from here, 'undo' takes that back"
    fi
  elif [ "$json" = no ] && [ "$action" = apply ]; then
    printf '\n%s changed, %s failed, %s for you to do; what was there stands in %s\n' "$changed" "$failures" "$differing" "$state"
  fi
  if [ "$action" = check ]; then [ "$differing" -eq 0 ]; else [ "$failures" -eq 0 ]; fi
}

undo() {
  stage=undo differing=0 failures=0 changed=0
  lock_state
  repair_state
  begin_output
  if [ -s "$state" ]; then
    # The last change is taken back first: fewer queues bring back the files of those there were.
    left=
    while IFS="$tab" read -r kind target before _; do
      [ -n "$kind" ] || continue
      now=$("current_$kind" "$target") || now=
      if [ "$now" = "$before" ]; then
        emit ok "$target" "$(shown "$kind" "$before")" "$(shown "$kind" "$before")" ''
      elif "put_$kind" "$target" "$before" && after=$("current_$kind" "$target") && [ "$after" = "$before" ]; then
        emit applied "$target" "$(shown "$kind" "$now")" "$(shown "$kind" "$before")" ''
      else
        emit failed "$target" "$(shown "$kind" "$now")" "$(shown "$kind" "$before")" "$(command_for "$kind" "$target" "$before")"
        left="$kind$tab$target$tab$before$tab$boot$tab.$newline$left"
      fi
    done <<END
$(awk '{ line[NR] = $0 } END { for (n = NR; n > 0; n--) print line[n] }' "$state")
END
    # Only what could not be put back is kept, for another try.
    if [ -n "$left" ]; then
      printf '%s' "$left" >"$state.new" && sync "$state.new" && mv "$state.new" "$state"
    else
      rm -f "$state"
    fi
    sync "$(dirname "$state")"
  fi
  end_output findings
  if [ "$json" = no ]; then
    echo
    if [ "$failures" -gt 0 ]; then
      echo "$changed put back, $failures could not be and stay in $state"
    else
      echo "$changed put back, nothing left to undo"
    fi
  fi
  [ "$failures" -eq 0 ]
}

# The smallest limit of a control group file from here to the root, by a function of its contents.
group_limits() {
  group=$(sed -n 's/^0:://p' "$root/proc/self/cgroup" 2>/dev/null)
  folder="$root/sys/fs/cgroup${group%/}"
  while :; do
    [ -r "$folder/$1" ] && cat "$folder/$1"
    [ "$folder" = "$root/sys/fs/cgroup" ] || [ "$folder" = "$root" ] || [ "$folder" = / ] || [ "$folder" = . ] && break
    folder=$(dirname "$folder")
  done
}

# advise NAME VALUE REASON
advise() {
  if [ "$json" = yes ]; then
    add_json "name$tab$1${tab}value$tab$2${tab}why$tab$3"
  else
    printf '  %-22s %-10s %s\n' "$1" "$2" "$3"
  fi
}

plan() {
  begin_output
  quota=$(group_limits cpu.max | awk '$1 != "max" && $2 > 0 { n = int($1 / $2); if (n < 1) n = 1; if (!least || n < least) least = n } END { print least + 0 }')
  paid=$cpu_count paid_why="one per processor it may use (${allowed:-0})"
  if [ "$quota" -gt 0 ] && [ "$quota" -lt "$cpu_count" ]; then
    paid=$quota paid_why="its control group pays for $quota of $cpu_count processors"
  fi

  # Where the card is on one of several memory nodes, shards belong beside it.
  nodes=0 beside=
  for node in "$root"/sys/devices/system/node/node[0-9]*; do [ -e "$node/cpulist" ] && nodes=$((nodes + 1)); done
  card_node=$(first_line "$root/sys/class/net/$iface/device/numa_node")
  if [ "$nodes" -gt 1 ] && [ -n "$iface" ] && [ "${card_node:--1}" -ge 0 ]; then
    near=$(expand_list "$(first_line "$root/sys/devices/system/node/node$card_node/cpulist")")
    for cpu in $cpus; do
      case " $near " in *" $cpu "*) beside="$beside${beside:+ }$cpu" ;; esac
    done
    near_count=$(echo "$beside" | wc -w | tr -d ' ')
    if [ "$near_count" -gt 0 ] && [ "$near_count" -lt "$cpu_count" ] && [ "$paid" -ge "$cpu_count" ]; then
      paid=$near_count paid_why="one per processor of memory node $card_node, where $iface is"
    else
      beside=
    fi
  fi

  pin=true shards=$paid feed_core=none
  if [ "$quota" -gt 0 ] && [ "$quota" -lt "$cpu_count" ]; then
    pin=false pin_why='others share these processors, so the kernel must be free to move the shards'
  else
    pin_why='each shard keeps its processor and its caches'
    if [ "$paid" -ge 4 ]; then
      shards=$((paid - 1)) feed_core=$(echo "${beside:-$cpus}" | awk '{ print $NF }')
      paid_why="$paid_why, less one for the feeds"
    fi
  fi
  [ "$json" = yes ] || echo
  advise shards "$shards" "$paid_why"
  advise pin "$pin" "$pin_why"
  if [ "$feed_core" != none ]; then
    advise feed-core "$feed_core" 'with four processors or more, feeds do not share with answers'
  fi
  if [ -n "$beside" ]; then
    advise CPUAffinity "$(echo "$beside" | tr ' ' ',')" "of the unit, or taskset -c: memory and card on the same node; other nodes are left to other work"
  fi

  case "$environment" in
    metal) spin=50 spin_why='a processor of our own may burn: a lone request is answered without waking a thread' ;;
    *) spin=0 spin_why="on a $environment a spinning processor is taken from neighbours, or paid for" ;;
  esac
  [ "$pin" = true ] || spin_why="$spin_why; and the control group's time would be spent on waiting" spin=0
  advise spin_us "$spin" "$spin_why"

  memory=$(group_limits memory.max | awk '$1 != "max" { if (!least || $1 < least) least = $1 } END { printf "%.0f", least }')
  total=$(awk '/^MemTotal:/ { printf "%.0f", $2 * 1024 }' "$root/proc/meminfo" 2>/dev/null)
  bound=$memory bound_why='its control group'
  if [ "${memory:-0}" = 0 ]; then bound=${total:-0} bound_why='the machine'; fi
  # Two addresses and two directions a shard; an eighth of the memory may stand in queues.
  buffer=$(awk -v bound="$bound" -v shards="$shards" 'BEGIN {
    most = 33554432; least = 262144; fit = bound / 8 / (shards * 4)
    size = most; while (size > fit && size > least) size /= 2
    printf "%d", size }')
  if [ "$buffer" -eq 33554432 ]; then
    advise socket_buffer_bytes "$buffer" 'a third of a second of requests at full speed'
  else
    advise socket_buffer_bytes "$buffer" "an eighth of the memory of $bound_why ($bound bytes), over $shards shards, two addresses and two directions"
  fi

  files=$(awk '/^Max open files/ { print $5 }' "$root/proc/self/limits" 2>/dev/null)
  case "$files" in unlimited | '') files=1048576 ;; esac
  connections=$(awk -v files="$files" -v shards="$shards" 'BEGIN { n = int((files - 512) / shards); if (n > 16384) n = 16384; if (n < 1) n = 1; print n }')
  advise connections_max "$connections" "this process may open $files descriptors; 512 are kept for the rest, and epoll takes one a connection"
  if [ "$json" = no ]; then
    printf '\nas flags: beast serve --shards %s --spin-us %s --set pin=%s --set socket_buffer_bytes=%s --set connections_max=%s\n' \
      "$shards" "$spin" "$pin" "$buffer" "$connections"
  fi
  end_output plan
}

stages() {
  for file in "$here"/stages/*.sh; do
    # shellcheck source=/dev/null
    . "$file"
  done
}

main() {
  action=${1:-}
  [ $# -gt 0 ] && shift
  json=no only='' environment='' iface='' udp_port=2679 http_port=8080 root='' seen=no
  state=/var/lib/beast-tuning/state
  while [ $# -gt 0 ]; do
    case "$1" in
      --json) json=yes; shift; continue ;;
      --stage | --as | --iface | --udp-port | --http-port | --state | --root)
        [ $# -ge 2 ] || die "$1 stands alone, needs a value" "see --help" 2 ;;
      -h | --help) usage; exit 0 ;;
      *) die "the argument '$1' is not known" "see --help" 2 ;;
    esac
    case "$1" in
      --stage) only=$2 ;;
      --as) environment=$2 ;;
      --iface) iface=$2 ;;
      --udp-port) udp_port=$2 ;;
      --http-port) http_port=$2 ;;
      --state) state=$2 ;;
      --root) root=$2 ;;
    esac
    shift 2
  done
  case "$environment" in
    '' | metal | vm | container | fargate) ;;
    *) die "--as is '$environment', needs metal, vm, container or fargate" "leave it out to let this look for itself" 2 ;;
  esac
  case "$iface" in
    */* | *' '* | .*) die "--iface is '$iface', needs the name of a card" "ip link shows them" 2 ;;
  esac
  case "$udp_port$http_port" in
    *[!0-9]*) die "a port is no number" "name ports from 1 to 65535" 2 ;;
  esac
  find_machine
  case "$action" in
    check | apply) check_or_apply ;;
    undo) undo ;;
    plan) plan ;;
    list) stages; end_output stages ;;
    -h | --help) usage ;;
    *)
      usage >&2
      exit 2
      ;;
  esac
}

main "$@"
