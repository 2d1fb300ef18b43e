#!/usr/bin/env bash
# Builds the example plugin written in Python: plugins/campaign.wasm. Not part of the normal build: it carries a whole
# Python (18 MB), which the host compiles in 12 s or more.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cache=${TIDEMARK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark}
version=0.25.1
tools=$cache/componentize-py-$version

if [ ! -x "$tools/bin/componentize-py" ]; then
  echo "plugin-python: installing componentize-py $version, which turns Python into a component, in $tools" >&2
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check "componentize-py==$version"
fi

cd "$root/plugins/examples-python/campaign"
# A plugin gets no WASI: its calls are answered inside the component (--stub-wasi).
"$tools/bin/componentize-py" --quiet -d "$root/plugin-sdk/wit/v0_1" -w enricher-plugin \
  componentize --stub-wasi campaign -o "$root/plugins/campaign.wasm.new"
mv "$root/plugins/campaign.wasm.new" "$root/plugins/campaign.wasm"
echo "plugin-python: plugins/campaign.wasm ($(du -k "$root/plugins/campaign.wasm" | cut -f1) KB)" >&2
