#!/usr/bin/env bash
# cargo for the workspace. TIDEMARK_SHARED_TARGET=1 (CI) builds in the cache folder, so that a fresh clone builds quickly.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -n "${TIDEMARK_SHARED_TARGET:-}" ]; then
  export CARGO_TARGET_DIR=${TIDEMARK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark}/target
fi
exec cargo "$@"
