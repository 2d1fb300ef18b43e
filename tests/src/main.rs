//! All tests that look at Tidemark from outside: one binary, one list. `cargo test -p tidemark-tests -- FILTER` runs a part of it.

mod binary;
mod dependencies;
mod diagnostics;
mod hostile;
mod scenarios;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials: Vec<Trial> = [dependencies::trials(), diagnostics::trials(), hostile::trials(), scenarios::trials()]
        .into_iter()
        .flatten()
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
