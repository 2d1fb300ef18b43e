#!/usr/bin/env bash
# Finds, or sets up, a Rust compiler for WebAssembly and prints its path: the one line on standard output.
#
#   RUSTC=$(scripts/wasm-toolchain.sh) \
#   CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-component-ld \
#   cargo build --release --target wasm32-unknown-unknown        # gives a component, no further tool
#
# In this order:
#   1. the target wasm32-unknown-unknown of the installed toolchain,
#   2. `rustup target add`, given 30 s,
#   3. Debian's compiler for the web and its library source, of which the target's standard library is built once
#      into the cache folder (40 s, 137 MB to load, 540 MB on disk; nothing is installed, no root needed).
# TIDEMARK_WASM_TOOLCHAIN=debian goes straight to 3; =rustup never goes there.
# The cache folder: TIDEMARK_CACHE, else $XDG_CACHE_HOME/tidemark, else ~/.cache/tidemark.
set -euo pipefail

target=wasm32-unknown-unknown
cache=${TIDEMARK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark}
dest=$cache/wasm-toolchain
choice=${TIDEMARK_WASM_TOOLCHAIN:-}
recipe=1 # raise it when what this script sets up changes
temporary=

say() { echo "wasm-toolchain: $*" >&2; }
fail() { say "$*"; exit 1; }
has_std() { ls "$("$1" --print target-libdir --target $target 2>/dev/null)"/libstd-*.rlib >/dev/null 2>&1; }

rustup_target() {
  local rustc
  rustc=$(rustc --print sysroot)/bin/rustc
  if has_std "$rustc"; then echo "$rustc"; return 0; fi
  command -v rustup >/dev/null || { say "no rustup here to add the target $target with"; return 1; }
  say "plugins are built for $target, which this toolchain does not have: rustup target add $target (at most 30 s)"
  timeout 30 rustup target add $target >&2 && has_std "$rustc" || { say "that did not work"; return 1; }
  echo "$rustc"
}

# The linkers come from the toolchain in use; it may have moved or been updated since.
link_linkers() {
  local bin=$1/lib/rustlib/x86_64-unknown-linux-gnu/bin from name
  from=$(rustc --print sysroot)/lib/rustlib/x86_64-unknown-linux-gnu/bin
  mkdir -p "$bin"
  for name in rust-lld wasm-component-ld gcc-ld; do
    [ -e "$from/$name" ] || fail "the installed toolchain has no $name (in $from): install Rust 1.95 or newer with rustup"
    [ "$(readlink "$bin/$name" || true)" = "$from/$name" ] || ln -sfn "$from/$name" "$bin/$name"
  done
}

fetch_packages() {
  local version
  version=$(apt-cache policy rustc-web | awk '/Candidate/{print $2}')
  if [ -z "$version" ] || [ "$version" = "(none)" ]; then
    say "the package lists are empty: apt-get update"
    apt-get update -qq >&2 || fail "apt-get update failed; run it as root, then try again"
    version=$(apt-cache policy rustc-web | awk '/Candidate/{print $2}')
  fi
  [ -n "$version" ] && [ "$version" != "(none)" ] || fail "this system's packages have no rustc-web; rustup target add $target is the other way"
  local major=${version%%.*} rest=${version#*.}
  local std=libstd-rust-web-$major.${rest%%.*}
  local options=()
  [ "$(id -u)" = 0 ] && options=(-o APT::Sandbox::User=root)
  say "loading rustc-web $version with its library source (137 MB), to be unpacked, not installed"
  # shellcheck disable=SC2046
  apt-get download -qq "${options[@]}" "rustc-web=$version" "rust-web-src=$version" "$std=$version" "libstd-rust-web-dev=$version" \
    $(apt-cache depends "$std" | awk '/Depends: libllvm/{print $2}') >&2
}

# In the folder with the packages: the compiler under $1, with the library's source.
unpack() {
  local package
  mkdir x
  for package in rustc-web_*.deb libstd-rust-web-*.deb libllvm*.deb; do dpkg -x "$package" x; done
  dpkg-deb --fsys-tarfile rust-web-src_*.deb |
    tar -x -C x --wildcards './usr/src/rustc-*/library' './usr/lib/rustlib/src*'
  mkdir -p "$1/bin" "$1/lib"
  cp -a x/usr/lib/x86_64-linux-gnu x/usr/lib/rustlib "$1/lib/"
  cp x/usr/bin/rustc "$1/bin/rustc.bin"
  cat > "$1/bin/rustc" <<'WRAPPER'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
LD_LIBRARY_PATH="$here/../lib/x86_64-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"; export LD_LIBRARY_PATH
exec "$here/rustc.bin" --sysroot "$(dirname "$here")" "$@"
WRAPPER
  chmod +x "$1/bin/rustc"
  rm -f "$1/lib/rustlib/src/rust"
  mkdir -p "$1/lib/rustlib/src/rust"
  cp -a x/usr/src/rustc-*/library "$1/lib/rustlib/src/rust/"
  link_linkers "$1"
}

# Debian ships no standard library for this target: build it from Debian's source with Debian's compiler.
build_std() {
  local libraries=$1/lib/rustlib/$target/lib file
  mkdir -p std/src
  : > std/src/lib.rs
  printf '[package]\nname = "std-of-wasm"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n' > std/Cargo.toml
  # Paths are cut so that the same plugin comes out with the same digest on every machine.
  local flags="-Cembed-bitcode=yes --remap-path-prefix=$1/lib/rustlib/src/rust=/rust"
  flags+=" --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
  # RUSTC_BOOTSTRAP allows -Zbuild-std here and only here.
  (cd std && RUSTC=$1/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$PWD/../std-target \
    RUSTFLAGS=$flags CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 \
    cargo build -q --release -Zbuild-std=std,panic_abort --target $target >&2)
  mkdir -p "$libraries"
  for file in std-target/$target/release/deps/*.rlib std-target/$target/release/deps/*.rmeta; do
    # The libc crate is empty for this target and would clash with a plugin's own.
    case $(basename "$file") in libc-*) ;; *) cp "$file" "$libraries"/ ;; esac
  done
  rm -rf "$1/lib/rustlib/src" "$1/lib/rustlib/etc"
}

debian() {
  mkdir -p "$cache"
  exec 9> "$cache/wasm-toolchain.lock"
  flock 9 # two set-ups at once: the second finds the work done
  if [ "$(cat "$dest/recipe" 2>/dev/null)" = $recipe ]; then
    link_linkers "$dest"
    echo "$dest/bin/rustc"
    return
  fi
  for tool in apt-get apt-cache dpkg dpkg-deb cargo; do
    command -v $tool >/dev/null || fail "no $tool here: install the target with: rustup target add $target"
  done
  [ "$(uname -m)" = x86_64 ] || fail "this way is for x86_64 only; install the target with: rustup target add $target"
  say "setting up a compiler for $target in $dest (once, about a minute)"
  temporary=$(mktemp -d "$cache/wasm-toolchain.XXXXXX")
  trap 'rm -rf "$temporary"' EXIT
  cd "$temporary"
  fetch_packages
  unpack "$temporary/done"
  say "building the standard library with $("$temporary/done/bin/rustc" -V)"
  build_std "$temporary/done"
  has_std "$temporary/done/bin/rustc" || fail "the standard library for $target did not come out"
  echo $recipe > "$temporary/done/recipe"
  rm -rf "$dest"
  mv "$temporary/done" "$dest"
  say "done: $(du -sh "$dest" | cut -f1) in $dest"
  echo "$dest/bin/rustc"
}

command -v rustc >/dev/null && command -v cargo >/dev/null || fail "Rust is not installed (rustc and cargo are not on the PATH)"
case $choice in
  debian) debian ;;
  rustup) rustup_target || fail "install the target with: rustup target add $target" ;;
  "") rustup_target || debian ;;
  *) fail "TIDEMARK_WASM_TOOLCHAIN=$choice is not known: debian, rustup, or unset" ;;
esac
