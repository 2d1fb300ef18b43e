#!/usr/bin/env bash
# Builds every plugin of plugins/ as a WebAssembly component and leaves it as plugins/NAME.wasm.
#   plugins.sh            that
#   plugins.sh hostile    also the misbehaving plugins of tests/hostile, as target/hostile/hostile_NAME.wasm
#   plugins.sh test       runs the tests of the SDK and of the plugins, natively; needs no WebAssembly, but the geo data
#
# The compiler is the one that wasm-toolchain.sh finds or sets up. Building happens in the cache folder
# (TIDEMARK_CACHE, else $XDG_CACHE_HOME/tidemark, else ~/.cache/tidemark), so that a fresh clone builds quickly.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cache=${TIDEMARK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark}
target=wasm32-unknown-unknown

if [ "${1:-}" = test ]; then
  export CARGO_TARGET_DIR=$cache/plugins-target-native
  for folder in plugin-sdk plugins; do cargo test --quiet --locked --manifest-path "$root/$folder/Cargo.toml"; done
  exit
fi

RUSTC=$("$root/scripts/wasm-toolchain.sh")
export RUSTC CARGO_TARGET_DIR=$cache/plugins-target CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-component-ld
mkdir -p "$cache"
exec 9> "$cache/plugins.lock"
flock 9 # clones share the folder: one must not take what another has just built

# Builds the crate in a folder.
build() { # folder
  cargo build --quiet --release --manifest-path "$1/Cargo.toml" --target $target
}

# A file is replaced whole, and only when it differs: a running host watches the folder.
place() { # from, to
  cmp -s "$1" "$2" && return
  cp "$1" "$2.new"
  mv "$2.new" "$2"
  echo "plugins: ${2#"$root/"} ($(du -k "$2" | cut -f1) KB)" >&2
}

[ -d "$CARGO_TARGET_DIR" ] || echo "plugins: building for the first time takes a minute or two" >&2
for manifest in "$root"/plugins/*/Cargo.toml; do
  folder=$(dirname "$manifest")
  name=$(basename "$folder")
  build "$folder"
  place "$CARGO_TARGET_DIR/$target/release/${name//-/_}.wasm" "$root/plugins/${name//-/_}.wasm"
done

if [ "${1:-}" = hostile ]; then
  mkdir -p "$root/target/hostile"
  for manifest in "$root"/tests/hostile/*/Cargo.toml; do
    folder=$(dirname "$manifest")
    name=hostile_$(basename "$folder")
    build "$folder"
    place "$CARGO_TARGET_DIR/$target/release/$name.wasm" "$root/target/hostile/$name.wasm"
  done
fi
