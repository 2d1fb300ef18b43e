#!/usr/bin/env bash
# Brings schemathesis, which asks a running host everything that its description of itself (`/openapi.json`) allows. Run again, it
# does nothing.
#
#   fuzzer.sh       loads it into the cache folder, unless it is there; what cannot be had is said, and is no failure
#   fuzzer.sh has   exit 0, or 1 with the reason on standard output
#
# The cache folder: TIDEMARK_CACHE, else $XDG_CACHE_HOME/tidemark, else ~/.cache/tidemark.
set -uo pipefail
cd "$(dirname "$0")/.."

# This name is known to tests/src/http/openapi.rs too.
fuzzer=${TIDEMARK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark}/schemathesis-4.32.5

say() { echo "fuzzer: $*" >&2; }

if [ "${1:-}" = has ]; then
  [ -d "$fuzzer" ] && exit 0
  echo "schemathesis is not at $fuzzer (scripts/fuzzer.sh loads it)"
  exit 1
fi

. scripts/need.sh

load() {
  [ -d "$fuzzer" ] && return
  need python3 python3 "runs schemathesis" || return
  say "loading schemathesis 4.32.5 (94 MB on disk, once)"
  local new=$fuzzer.new
  rm -rf "$new"
  # Called by its module: the scripts of a virtual environment know only the place where they were made.
  { python3 -m venv "$new" || { need pip python3-venv "makes a place for schemathesis" && python3 -m venv "$new"; }; } &&
    "$new/bin/python" -m pip install --quiet --disable-pip-version-check schemathesis==4.32.5 >&2 &&
    "$new/bin/python" -m schemathesis.cli --version >&2 &&
    mv "$new" "$fuzzer"
}

mkdir -p "$(dirname "$fuzzer")"
exec 9>"$fuzzer.lock"
flock 9 # two set-ups at once: the second finds the work done
load || say "schemathesis could not be loaded: what the host says of itself is not tested by it"
