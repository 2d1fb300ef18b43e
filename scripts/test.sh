#!/usr/bin/env bash
# Every test there is, suite by suite. Prints one line for each suite and a closing one; keeps each suite's output in
# target/test-output. A suite that cannot run is said with its reason, and does not count as passed. Exit 1 if anything failed.
set -uo pipefail
cd "$(dirname "$0")/.."

out=$PWD/target/test-output
mkdir -p "$out"
passed=0 failed=0 not_run=0 started=$SECONDS
# No suite takes half of it, from empty caches, on two slow cores; all the same one that hangs must not hide what the others say.
suite_seconds_max=2400
# A suite runs in a process group of its own, which a Ctrl-C does not reach.
trap 'kill $(jobs -p) 2>/dev/null; exit 130' INT TERM
if [ -t 1 ]; then green=$'\e[32m' red=$'\e[31m' yellow=$'\e[33m' plain=$'\e[0m'; else green= red= yellow= plain=; fi

# Sum of the numbers before a word in the result lines of cargo, vitest and our own.
count() { # word, file
  sed $'s/\e\\[[0-9;]*m//g' "$2" | grep -E '^test result:|^ *Tests +|^[0-9]+ passed, [0-9]+ failed' |
    grep -oE "[0-9]+ $1" | awk '{ sum += $1 } END { print sum + 0 }'
}

# Runs a suite. One without result lines of its own is one test: it passes or fails as a whole. One that has such lines
# and counts nothing looked for tests that are not there: it fails.
suite() { # name, command…
  local name=$1 log=$out/$(echo "$1" | tr -cs "a-zA-Z0-9\n" -).log status at=$SECONDS good bad missed
  shift
  timeout --kill-after=10 $suite_seconds_max "$@" >"$log" 2>&1 &
  wait $!
  status=$?
  [ $status -ne 124 ] || echo "stopped: not done after $suite_seconds_max s" >>"$log"
  good=$(count passed "$log") bad=$(count failed "$log") missed=$(count ignored "$log")
  if [ $status -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
  if [ $status -eq 0 ] && [ $((good + bad + missed)) -eq 0 ]; then
    if grep -qE '^test result:|^ *Tests +|^[0-9]+ passed, ' "$log"; then bad=1; else good=1; fi
  fi
  passed=$((passed + good)) failed=$((failed + bad)) not_run=$((not_run + missed))
  if [ "$bad" -gt 0 ]; then
    echo "${red}FAILED${plain}  $name: $good passed, $bad failed ($((SECONDS - at)) s); the end of $log:"
    tail -n 60 "$log" | sed 's/^/    /'
  elif [ "$missed" -gt 0 ]; then
    echo "${yellow}partly${plain}  $name: $good passed, 0 failed, $missed not run for want of a plugin or a service ($((SECONDS - at)) s)"
  else
    echo "${green}ok${plain}      $name: $good passed, 0 failed ($((SECONDS - at)) s)"
  fi
}

skip() { # name, reason
  not_run=$((not_run + 1))
  echo "${yellow}NOT RUN${plain} $1: $2"
}

# The examples beside each plugin, in the real sandbox.
plugin_cases() {
  local cases status=0
  for cases in plugins/*/cases.toml; do
    target/release/tidemark plugin test "$(dirname "$cases").wasm" || status=1
  done
  return $status
}
export -f plugin_cases

suite "set-up" scripts/setup.sh test
suite "formatting" scripts/format.sh --check
suite "build" scripts/build.sh
suite "clippy" scripts/cargo.sh clippy --release --workspace --all-targets -- -D warnings
suite "rust unit tests" scripts/cargo.sh test --release -p tidemark --lib -- --skip real_
# Their modules are named after the service that they start.
for service in kafka redis clickhouse; do
  if reason=$(scripts/services.sh has $service); then
    suite "rust unit tests with a real $service" scripts/cargo.sh test --release -p tidemark --lib -- real_$service
  else
    skip "rust unit tests with a real $service" "$reason"
  fi
done
suite "plugin SDK and plugins" scripts/plugins.sh test
suite "plugins, in the sandbox" bash -c plugin_cases
suite "page unit tests" npm --prefix host/dashboard test
suite "from outside: scenarios, http, kill -9, reload, services" scripts/cargo.sh test --release -p tidemark-tests
if reason=$(scripts/deploy.sh has); then
  suite "deploy files against their schemas" scripts/deploy.sh check
else
  skip "deploy files against their schemas" "$reason"
fi
if ! command -v chromium >/dev/null; then
  skip "page in a browser" "no chromium (apt-get install chromium)"
elif [ ! -d tests/browser/node_modules ]; then
  skip "page in a browser" "its npm packages could not be installed"
else
  suite "page in a browser" node tests/browser/run.mjs --binary "$PWD/target/release/tidemark" --out "$out/browser"
fi

[ $not_run -gt 0 ] && echo "$not_run not run, see above"
echo "took $((SECONDS - started)) s"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
