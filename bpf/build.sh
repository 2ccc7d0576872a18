#!/usr/bin/env bash
# Builds the kernel programs. What it makes is kept in the repository, so that building beast needs no
# clang; `--check` builds into a temporary folder instead and fails when anything differs.
#
#   bash bpf/build.sh            writes bpf/*.bpf.o
#   bash bpf/build.sh --check    compares, changes nothing
#
# The compiler is pinned: another version makes other bytes. It is the clang-14 of Debian 12.
set -euo pipefail
cd "$(dirname "$0")"

readonly wanted="14.0.6"
for tool in clang-14 llvm-strip-14; do
  command -v "$tool" >/dev/null || {
    echo "error: there is no $tool" >&2
    echo "  what to do: apt-get install clang-14 llvm-14 (Debian 12), or run bash check.sh" >&2
    exit 1
  }
done
found=$(clang-14 -dumpversion)
[ "$found" = "$wanted" ] || {
  echo "error: clang-14 is version $found, needs $wanted: another one makes other bytes" >&2
  echo "  what to do: build on Debian 12" >&2
  exit 1
}

case "${1:-}" in
  "") out=. ;;
  --check) out=$(mktemp -d) && trap 'rm -rf "$out"' EXIT ;;
  *)
    echo "error: the argument is '$1', needs '--check' or none" >&2
    exit 2
    ;;
esac

status=0
for source in *.bpf.c; do
  object=${source%.c}.o
  # BTF is made from debug information; the rest of that information is stripped.
  clang-14 -target bpf -mcpu=v3 -O2 -g -Wall -Wextra -Werror -fdebug-compilation-dir=. \
    -c "$source" -o "$out/$object"
  llvm-strip-14 --strip-debug "$out/$object"
  if [ "$out" != . ] && ! cmp -s "$out/$object" "$object"; then
    echo "error: bpf/$object is not what bpf/$source builds into" >&2
    echo "  what to do: bash bpf/build.sh, and commit the object with its source" >&2
    status=1
  fi
done
[ "$out" = . ] || [ "$status" -ne 0 ] || echo "the kept objects are what their sources build into"
exit "$status"
