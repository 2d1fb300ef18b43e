//! All tests that look at Tidemark from outside: one binary, one list. `cargo test -p tidemark-tests -- FILTER` runs a part of it.

mod alerts;
mod author;
mod backfill;
mod bench;
mod binary;
mod clickhouse;
mod cluster;
mod collect;
mod commands;
mod dependencies;
mod diagnostics;
mod disk;
mod host;
mod hostile;
mod http;
mod inside;
mod kafka;
mod kill;
mod outage;
mod prometheus;
mod raw;
mod redis;
mod reload;
mod scenarios;
mod services;
mod trial;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let suites: &[fn() -> Vec<Trial>] = &[
        alerts::trials,
        author::trials,
        backfill::trials,
        bench::trials,
        clickhouse::trials,
        cluster::trials,
        collect::trials,
        commands::trials,
        dependencies::trials,
        diagnostics::trials,
        disk::trials,
        hostile::trials,
        http::trials,
        kafka::trials,
        kill::trials,
        outage::trials,
        prometheus::trials,
        raw::trials,
        redis::trials,
        reload::trials,
        scenarios::trials,
        services::trials,
        trial::trials,
    ];
    let trials = suites.iter().flat_map(|trials| trials()).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
