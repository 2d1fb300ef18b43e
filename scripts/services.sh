#!/usr/bin/env bash
# Brings the real services that tests run against, and says what and why. Run again, it does nothing. Nothing is started.
#
#   services.sh              everything that is not there yet; what cannot be had is said, and is no failure
#   services.sh has NAME     kafka, redis, clickhouse or alertmanager: exit 0, or 1 with the reason on standard output
#
#   kafka       Apache Kafka's own jars, by Maven (43 MB); needs Java. With it `kcat`, a foreign client
#   redis       Debian's redis-server
#   clickhouse  the engine of ClickHouse 26.9 as a Python package (895 MB on disk), behind tests/services/clickhouse_http.py
#
#   alertmanager  Debian's prometheus-alertmanager
#
# Debian's packages are installed where this runs as root. The rest goes to the cache folder:
# TIDEMARK_CACHE, else $XDG_CACHE_HOME/tidemark, else ~/.cache/tidemark.
set -uo pipefail
cd "$(dirname "$0")/.."

services=${TIDEMARK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark}/services
# These names are known to tests/services too.
kafka=$services/kafka-4.3.1
clickhouse=$services/chdb-26.9.0

say() { echo "services: $*" >&2; }

# The reason why a service cannot be started, if there is one.
missing() { # name
  case $1 in
    kafka)
      command -v java >/dev/null || { echo "no java (apt-get install default-jre-headless)"; return; }
      [ -d "$kafka" ] || echo "Apache Kafka is not in $services (scripts/services.sh loads it)"
      ;;
    redis) command -v redis-server >/dev/null || echo "no redis-server (apt-get install redis-server)" ;;
    alertmanager)
      command -v prometheus-alertmanager >/dev/null || echo "no prometheus-alertmanager (apt-get install prometheus-alertmanager)"
      ;;
    clickhouse) [ -d "$clickhouse" ] || echo "the ClickHouse engine is not in $services (scripts/services.sh loads it)" ;;
    *) echo "no service of the name $1" ;;
  esac
}

if [ "${1:-}" = has ]; then
  reason=$(missing "$2")
  [ -z "$reason" ] && exit 0
  echo "$reason"
  exit 1
fi

. scripts/need.sh

load_kafka() {
  [ -d "$kafka" ] && return
  need java default-jre-headless "Kafka runs in it" && need mvn maven "loads Kafka" || return
  say "loading Apache Kafka 4.3.1 (43 MB, once)"
  local new=$kafka.new
  rm -rf "$new"
  mvn -q -B -f tests/services/kafka/pom.xml dependency:copy-dependencies -DoutputDirectory="$new" -DincludeScope=runtime >&2 &&
    mv "$new" "$kafka"
}

load_clickhouse() {
  [ -d "$clickhouse" ] && return
  need python3 python3 "runs the ClickHouse engine" || return
  say "loading the ClickHouse engine 26.9.0 (chdb-core, 895 MB on disk, once)"
  local new=$clickhouse.new
  rm -rf "$new"
  # Not by activation: a virtual environment finds its packages by where its interpreter stands, so it may be renamed.
  { python3 -m venv "$new" || { need pip python3-venv "makes a place for the ClickHouse engine" && python3 -m venv "$new"; }; } &&
    "$new/bin/python" -m pip install --quiet --disable-pip-version-check chdb-core==26.9.0 lz4 >&2 &&
    "$new/bin/python" -c 'import chdb, lz4.block; print(chdb.query("select 1", "TabSeparated").data())' >/dev/null &&
    mv "$new" "$clickhouse"
}

mkdir -p "$services"
exec 9>"$services.lock"
flock 9 # two set-ups at once: the second finds the work done
need redis-server redis-server "the hot store of many hosts is tested with it" || true
need prometheus-alertmanager prometheus-alertmanager "alerts are sent to a real one" || true
need kcat kcat "a foreign client of Kafka" || true
load_kafka || say "Apache Kafka could not be loaded: what needs it is not tested"
load_clickhouse || say "the ClickHouse engine could not be loaded: what needs it is not tested"
