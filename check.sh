#!/usr/bin/env bash
# Runs every check of this repository and installs what the checks need.
#
#   bash check.sh          everything; what CI runs
#   bash check.sh quick    format, lints, tidy, documents: no other tests
#
# Stops at the first stage that fails. The recordings of real exchanges are looked for where
# BEAST_RECORDINGS points, else in ../shared/recordings; with CI=true their absence is a failure.
set -euo pipefail
cd "$(dirname "$0")"

mode=${1:-full}
case "$mode" in
  quick | full) ;;
  *)
    echo "error: the argument is '$mode', needs 'quick' or 'full' (or none, which is 'full')" >&2
    exit 2
    ;;
esac

fail() {
  echo "error: $1" >&2
  echo "  what to do: $2" >&2
  exit 1
}

# stage NAME SECONDS_MAX COMMAND…: runs a command, bounded, and prints what it took.
stages_begin=$SECONDS
stage() {
  local name=$1 seconds_max=$2 begin=$SECONDS status=0
  shift 2
  echo "== $name"
  timeout --kill-after=10 "$seconds_max" "$@" || status=$?
  if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
    fail "$name was still running after $seconds_max s" "run '$*' alone to see where it stands"
  elif [ "$status" -ne 0 ]; then
    fail "$name failed (exit $status) after $((SECONDS - begin)) s" "mend what is shown above; '$*' repeats this stage"
  fi
  echo "== $name: $((SECONDS - begin)) s"
}

# The packages of Debian and its relatives that the build and the tests need, where missing.
install_packages() {
  local missing=()
  command -v cc >/dev/null || missing+=(gcc)
  [ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)
  if [ "$mode" = full ]; then
    # Tests open a report's page in a browser, and read its histograms with Python.
    command -v chromium >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium fonts-dejavu-core)
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
  fi
  # What the settings of a machine are read, changed and checked with.
  PATH=$PATH:/usr/sbin:/sbin
  command -v shellcheck >/dev/null || missing+=(shellcheck)
  command -v ethtool >/dev/null || missing+=(ethtool)
  command -v nft >/dev/null || missing+=(nftables)
  command -v ip >/dev/null || missing+=(iproute2)
  # A server of the tests' own; Debian keeps initdb out of the PATH, by version.
  command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
  # The kernel programs are built by this very compiler, so that the kept objects can be compared.
  command -v clang-14 >/dev/null || missing+=(clang-14)
  command -v llvm-strip-14 >/dev/null || missing+=(llvm-14)
  # It verifies the units; nothing of it is started.
  command -v systemd-analyze >/dev/null || missing+=(systemd)
  [ "${#missing[@]}" -eq 0 ] && return 0
  command -v apt-get >/dev/null ||
    fail "missing: ${missing[*]}, and there is no apt-get" "install a C compiler with its headers by this system's own means"
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null ||
      fail "missing: ${missing[*]}, and this user may not install packages" "run as root: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  stage "install ${missing[*]}" 600 "${as_root[@]}" sh -c \
    "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends ${missing[*]}"
}

check_toolchain() {
  command -v cargo >/dev/null ||
    fail "there is no cargo" "install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or later from https://rustup.rs"
  local component
  for component in fmt:rustfmt clippy:clippy; do
    cargo "${component%:*}" --version >/dev/null 2>&1 && continue
    command -v rustup >/dev/null ||
      fail "cargo ${component%:*} is missing" "install ${component#*:} for this toolchain"
    stage "install ${component#*:}" 300 rustup component add "${component#*:}"
  done
}

# An implementation of HdrHistogram that is not ours, where tests look for it.
install_hdrhistogram() {
  local folder="${CARGO_TARGET_DIR:-target}/tools/hdrhistogram"
  "$folder/bin/python" -c 'import hdrh.log' 2>/dev/null && return 0
  stage "install hdrhistogram for Python" 300 sh -c \
    'python3 -m venv --clear "$0" && "$0/bin/pip" install --quiet --disable-pip-version-check hdrhistogram' "$folder"
}

# A reader of Parquet that is not ours, likewise.
install_duckdb() {
  local folder="${CARGO_TARGET_DIR:-target}/tools/duckdb"
  "$folder/bin/python" -c 'import duckdb' 2>/dev/null && return 0
  stage "install duckdb for Python" 300 sh -c \
    'python3 -m venv --clear "$0" && "$0/bin/pip" install --quiet --disable-pip-version-check duckdb' "$folder"
}

install_packages
check_toolchain
[ "$mode" = quick ] || { install_hdrhistogram; install_duckdb; }

stage "format" 60 cargo fmt --check
# The stages take from the driver what these two say is not set or not used.
stage "scripts" 60 shellcheck -s sh -e SC2034,SC2154 tuning/tune.sh tuning/stages/*.sh
stage "kernel programs" 60 bash bpf/build.sh --check
stage "lints" 1500 cargo clippy --locked --all-targets -- -D warnings
stage "documents" 900 env RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet

if [ "$mode" = quick ]; then
  stage "tidy" 900 cargo test --locked --quiet --test tidy
else
  # tests/tidy.rs is one of them; so is the one that parses every command of the README.
  if cargo nextest --version >/dev/null 2>&1; then
    stage "tests" 1800 cargo nextest run --locked --all-targets --no-fail-fast
  else
    stage "tests" 1800 cargo test --locked --all-targets
  fi
  stage "examples in documents" 600 cargo test --locked --doc --quiet
fi

echo "all checks passed ($mode, $((SECONDS - stages_begin)) s)"
