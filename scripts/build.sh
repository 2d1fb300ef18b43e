#!/usr/bin/env bash
# Builds the binary and leaves it as target/release/tidemark, wherever cargo's target folder is.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/cargo.sh build --release -p tidemark --bin tidemark
# Cargo says where: the folder may be set by the environment or by a configuration file.
made=$(scripts/cargo.sh metadata --format-version 1 --no-deps | sed -E 's/.*"target_directory":"([^"]*)".*/\1/')/release/tidemark
wanted=target/release/tidemark
if ! [ "$made" -ef "$wanted" ]; then
  mkdir -p target/release
  ln -f "$made" "$wanted.new" 2>/dev/null || cp "$made" "$wanted.new"
  mv -f "$wanted.new" "$wanted"
fi
