# Thin: each target says what it does; the work is in scripts/ and cargo.
# CARGO_TARGET_DIR may point elsewhere (CI keeps it in a cache): the binary still ends up in target/release.

.PHONY: help setup build run check test soak bench fmt lint page

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

setup: ## system packages, the page, the WebAssembly compiler, plugins, geo data; skips what is there
	@scripts/setup.sh

build: setup ## target/release/tidemark, and in plugins/ each plugin's .wasm with its data
	@scripts/build.sh

run: build ## the host with a shop's made-up traffic on http://127.0.0.1:8080
	target/release/tidemark run --demo

check: build ## validate metrics.toml and its plugins
	target/release/tidemark check

test: ## every test there is; says what it could not run and why
	@scripts/test.sh

soak: build ## kill -9 in hundreds of rounds (ROUNDS=300, SEED=the time); many hosts harmed in a hundred (CLUSTER_ROUNDS=100)
	@scripts/cargo.sh build --release -p tidemark-tests --tests
	TIDEMARK_KILL_ROUNDS=$${ROUNDS:-300} TIDEMARK_KILL_SEED=$${SEED:-$$(date +%s)} scripts/cargo.sh test --release -p tidemark-tests -- kill
	TIDEMARK_CLUSTER_ROUNDS=$${CLUSTER_ROUNDS:-100} TIDEMARK_KILL_SEED=$${SEED:-$$(date +%s)} scripts/cargo.sh test --release -p tidemark-tests -- cluster

bench: build ## the speed floor, as ratios of one run, kept in host/benches/results
	@scripts/cargo.sh build --release -p tidemark --examples
	python3 host/benches/bench.py --keep

fmt: ## format all Rust
	@scripts/format.sh

lint: setup ## formatting and clippy, warnings denied
	@scripts/format.sh --check
	@scripts/cargo.sh clippy --release --workspace --all-targets -- -D warnings

page: ## build the web page alone; `npm --prefix host/dashboard run dev` serves it while you edit
	@scripts/setup.sh page
