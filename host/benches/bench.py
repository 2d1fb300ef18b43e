#!/usr/bin/env python3
"""`make bench`: everything on the same file in the same run, printed as ratios and kept in host/benches/results.

replay with 1 and 2 shards, sonic-rs parsing into a typed struct, DuckDB with 2 threads, and a query of 24 hours over 1,000 series.
Each program runs ROUNDS times, interleaved, and the best round counts: what disturbs a machine only ever makes it slower.
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("TIDEMARK_CACHE") or pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "tidemark")
DUCKDB = "duckdb==2.0.*"
ROUNDS = 3
SERIES = 1_000
QUERY_DEFINITIONS = """
[event]
time = "ts"
[dimensions]
series = {}
[metrics]
total = "sum(x)"
"""


def built():
    """Where cargo leaves what it builds, wherever that was told to be."""
    metadata = subprocess.run([ROOT / "scripts/cargo.sh", "metadata", "--format-version", "1", "--no-deps"], capture_output=True, text=True, check=True)
    return pathlib.Path(json.loads(metadata.stdout)["target_directory"]) / "release"


def last_json(command, stream="stdout"):
    """Runs a program; the last line that it prints is an object."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return json.loads(getattr(done, stream).strip().splitlines()[-1])


def events_file(binaries, events):
    """The events are made once: the same seed gives the same file."""
    path = CACHE / "bench" / f"events-{events}-1.ndjson"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"making {events} events: {path}", flush=True)
        part = path.with_suffix(".part")
        subprocess.run([binaries / "examples/generate", "--events", str(events), "--out", part], check=True)
        part.rename(path)
    return path


def duckdb_python():
    """A Python with DuckDB from PyPI in the cache folder, or None with the reason said."""
    venv = CACHE / "duckdb-venv"
    python = venv / "bin/python"
    try:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        if subprocess.run([python, "-c", "import duckdb"], capture_output=True, check=False).returncode:
            subprocess.run([python, "-m", "pip", "install", "--quiet", DUCKDB], check=True)
        return python
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"NOT RUN: DuckDB could not be installed: {error}")
        return None


def replay(binaries, file, shards):
    return last_json(
        [binaries / "tidemark", "replay", "--metrics", ROOT / "host/benches/replay.toml", "--plugins", ROOT / "plugins",
         "--shards", shards, "--no-points", "--summary", "json", file],
        "stderr",
    )


def get(url):
    with urllib.request.urlopen(url, timeout=120) as answer:
        return answer.read()


def query_milliseconds(binaries):
    """Median time of a query of 24 hours at a minute's step over 1,000 series, each with a value in every minute."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = pathlib.Path(folder) / "metrics.toml"
        metrics.write_text(QUERY_DEFINITIONS)
        host = subprocess.Popen(
            [binaries / "tidemark", "run", "--metrics", metrics, "--data", f"{folder}/data", "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        try:
            url = host.stdout.readline().split("listening on ")[1].strip()
            now = int(time.time() * 1000)
            first = now // 60_000 - 24 * 60 + 1
            for start in range(first, first + 24 * 60, 20):
                minutes = range(start, min(start + 20, first + 24 * 60))
                body = "".join(f'{{"ts":{m * 60_000},"series":"s{s}","x":{(m * s) % 997}}}\n' for m in minutes for s in range(SERIES))
                request = urllib.request.Request(f"{url}/v1/events", body.encode(), {"Content-Type": "application/x-ndjson"})
                with urllib.request.urlopen(request, timeout=120) as answer:
                    if json.load(answer)["rejected"]:
                        raise SystemExit("the query's events were rejected")
            asked = f"{url}/v1/query?metric=total&by=series&from={first * 60_000}&to={(first + 24 * 60) * 60_000}"
            deadline = time.monotonic() + 60
            while True:
                answer = json.loads(get(asked))
                points = sum(len(series["points"]) for series in answer["series"])
                if points >= SERIES * 24 * 60 or time.monotonic() > deadline:
                    break
            times = []
            for _ in range(7):
                started = time.perf_counter()
                get(asked)
                times.append((time.perf_counter() - started) * 1000)
            return sorted(times)[len(times) // 2], len(answer["series"]), points
        finally:
            host.send_signal(signal.SIGTERM)
            host.wait(60)


def machine():
    model = platform.machine()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if pathlib.Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def commit():
    def git(*arguments):
        return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short", "HEAD") or "unknown", "+changes" if git("status", "--porcelain", "-uno") else ""


def report(rates, versions, query, events):
    one, two, typed, duckdb = (rates.get(name) for name in ("one", "two", "typed", "duckdb"))
    rows = [
        ("typed parse (sonic-rs), 1 core", typed, ""),
        ("replay, 1 shard", one, f"{one / typed:.2f} × the typed parse (floor 1.00)"),
        ("replay, 2 shards", two, f"{two / one:.2f} × one shard (floor 1.80); {two / 2 / typed:.2f} × the typed parse per core (floor 1.00)"),
    ]
    if duckdb:
        rows.append((f"DuckDB {versions}, 2 threads", duckdb, f"replay on 2 shards: {two / duckdb:.2f} × (floor 1.00)"))
    lines = [f"{events:,} events of 500 bytes; best of {ROUNDS} interleaved rounds.", "", "| | M events/s | ratio |", "|---|---:|---|"]
    lines += [f"| {name} | {rate / 1e6:.2f} | {ratio} |" for name, rate, ratio in rows]
    if query:
        lines += ["", f"24-hour query over {query[1]:,} series, {query[2]:,} points: {query[0]:.0f} ms (ceiling 200 ms)."]
    return "\n".join(lines)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--binaries", type=pathlib.Path, help="the folder of the programs; where cargo leaves them, if not given")
    arguments.add_argument("--events", type=int, default=4_000_000)
    arguments.add_argument("--keep", action="store_true", help="write the result to host/benches/results")
    arguments = arguments.parse_args()
    binaries = arguments.binaries or built()
    file = events_file(binaries, arguments.events)
    python = duckdb_python()
    rates, version = {}, ""
    for _ in range(ROUNDS):
        rounds = {
            "typed": last_json([binaries / "examples/typed_parse", file]),
            "one": replay(binaries, file, 1),
            "two": replay(binaries, file, 2),
        }
        if python:
            rounds["duckdb"] = last_json([python, ROOT / "host/benches/duckdb_scan.py", file])
            version = rounds["duckdb"]["version"]
        for name, result in rounds.items():
            rates[name] = max(rates.get(name, 0), result["events_per_s"])
            print(f"{name}: {result['events_per_s'] / 1e6:.2f} M events/s", flush=True)
    query = query_milliseconds(binaries)
    text = report(rates, version, query, arguments.events)
    print("\n" + text)
    if arguments.keep:
        head, changes = commit()
        date = datetime.date.today().isoformat()
        results = ROOT / "host/benches/results" / f"{date}-{head}.md"
        results.parent.mkdir(exist_ok=True)
        results.write_text(f"# {date}, commit {head}{changes}\n\n{machine()}\n\n{text}\n")
        print(f"\nkept: {results.relative_to(ROOT)}")


if __name__ == "__main__":
    if not shutil.which("git"):
        raise SystemExit("git is missing")
    main()
