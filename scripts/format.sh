#!/usr/bin/env bash
# Formats the workspaces (host and tests; the SDK; the plugins). `--check` changes nothing and fails where something would change.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo fmt --all -- "$@"
for manifest in plugin-sdk/Cargo.toml plugins/Cargo.toml; do
  [ -f "$manifest" ] && cargo fmt --all --manifest-path "$manifest" -- "$@"
done
for file in tests/hostile/*/src/lib.rs; do
  rustfmt --edition 2024 "$@" "$file"
done
