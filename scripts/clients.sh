#!/usr/bin/env bash
# Brings other vendors' own clients, which the suite sends events with, and says what and why. Run again, it does nothing.
#
#   clients.sh             everything that is not there yet; what cannot be had is said, and is no failure
#   clients.sh has NAME    node or python: exit 0 with the folder, or 1 with the reason, on standard output
#
#   node      @segment/analytics-node and posthog-node (11 MB), at the versions of tests/clients/package-lock.json
#   python    segment-analytics-python and posthog (62 MB), at the versions of tests/clients/requirements.txt
#
# They go to the cache folder: TIDEMARK_CACHE, else $XDG_CACHE_HOME/tidemark, else ~/.cache/tidemark.
set -uo pipefail
cd "$(dirname "$0")/.."

clients=${TIDEMARK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark}/clients
say() { echo "clients: $*" >&2; }

# One folder for each state of what is asked for.
folder() { # name
  case $1 in
    node) echo "$clients/node-$(sha256sum <tests/clients/package-lock.json | head -c 12)" ;;
    python) echo "$clients/python-$(sha256sum <tests/clients/requirements.txt | head -c 12)" ;;
  esac
}

if [ "${1:-}" = has ]; then
  where=$(folder "$2")
  if [ -d "$where" ]; then
    echo "$where"
    exit 0
  fi
  echo "the vendors' clients for $2 are not in $clients (scripts/clients.sh loads them)"
  exit 1
fi

. scripts/need.sh

load_node() {
  local where new
  where=$(folder node) new=$(folder node).new
  [ -d "$where" ] && return
  need npm npm "loads the vendors' clients for Node" || return
  say "loading @segment/analytics-node and posthog-node (11 MB, once)"
  rm -rf "$new" && mkdir -p "$new" && cp tests/clients/package.json tests/clients/package-lock.json tests/clients/.npmrc "$new" &&
    npm --prefix "$new" ci --silent --no-audit --no-fund --ignore-scripts >&2 && mv "$new" "$where"
}

load_python() {
  local where new
  where=$(folder python) new=$(folder python).new
  [ -d "$where" ] && return
  need python3 python3 "runs the vendors' clients for Python" || return
  say "loading segment-analytics-python and posthog (62 MB, once)"
  rm -rf "$new"
  { python3 -m venv "$new" || { need pip python3-venv "makes a place for the vendors' clients" && python3 -m venv "$new"; }; } &&
    "$new/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r tests/clients/requirements.txt >&2 &&
    "$new/bin/python" -c 'import posthog, segment.analytics' && mv "$new" "$where"
}

mkdir -p "$clients"
exec 9>"$clients.lock"
flock 9 # two set-ups at once: the second finds the work done
load_node || say "the vendors' clients for Node could not be loaded: nothing is sent with them"
load_python || say "the vendors' clients for Python could not be loaded: nothing is sent with them"
