#!/usr/bin/env bash
# Formats the workspaces (host and tests; the SDK; plugins with the misbehaving ones). `--check` changes nothing and fails where something would change.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo fmt --all -- "$@"
cargo fmt --all --manifest-path plugin-sdk/Cargo.toml -- "$@"
cargo fmt --all --manifest-path plugins/Cargo.toml -- "$@"
