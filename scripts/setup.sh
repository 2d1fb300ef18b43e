#!/usr/bin/env bash
# Brings what building and testing needs and is not there yet; says what and why. Run again, it does nothing.
#
#   setup.sh         what `make run` needs: compiler and linker, the page, the WebAssembly compiler, plugins, geo data
#   setup.sh test    and what `make test` needs besides: a browser, promtool, the misbehaving plugins of the tests, a fuzzer of HTTP,
#                    the services that many hosts share (Kafka, Redis, ClickHouse), and other vendors' clients
#   setup.sh page    the page alone
#
# Needs no root where the system packages are there. Caches: TIDEMARK_CACHE, else $XDG_CACHE_HOME/tidemark, else ~/.cache/tidemark.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-run}

say() { echo "setup: $*" >&2; }

. scripts/need.sh

# Front-end packages, once for each state of the lock file.
packages() { # folder
  local lock stamp=$1/node_modules/.tidemark-lock
  lock=$(sha256sum <"$1/package-lock.json")
  [ "$(cat "$stamp" 2>/dev/null)" = "$lock" ] && return
  say "$1: npm packages"
  npm --prefix "$1" ci --silent --no-audit --no-fund
  echo "$lock" >"$stamp"
}

# The page, when something of its source is newer than what was built.
page() {
  local folder=host/dashboard
  packages $folder
  if [ ! -f $folder/dist/index.html ] ||
    [ -n "$(find $folder -path $folder/node_modules -prune -o -path $folder/dist -prune -o -path $folder/test -prune -o -type f -newer $folder/dist/index.html -print -quit)" ]; then
    say "building the page"
    npm --prefix $folder run --silent build >/dev/null
    touch $folder/dist/index.html
  fi
}

command -v cargo >/dev/null || { say "Rust is missing: https://rustup.rs (1.95 or newer)"; exit 1; }
command -v npm >/dev/null || { say "Node.js is missing: https://nodejs.org (20 or newer), or on Debian: apt-get install nodejs npm"; exit 1; }
need cc build-essential "the linker of Rust programs, and zstd's C code"
need perl perl "builds the TLS library of the Kafka client"

page
[ "$what" = page ] && exit 0

if [ "$what" = test ]; then
  scripts/plugins.sh hostile
  # Missing, they cost their suite, not the others: test.sh says so.
  need chromium chromium "the page is looked at in a real browser" || true
  need promtool prometheus "the Prometheus API is asked by Prometheus' own client" || true
  [ -d tests/browser ] && packages tests/browser
  scripts/services.sh
  scripts/clients.sh
  scripts/fuzzer.sh
else
  scripts/plugins.sh
fi
scripts/geo-data.sh
