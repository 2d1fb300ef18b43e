//! `tidemark completions`: what a shell needs to complete commands and flags.

use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

/// Print the completions of a shell: `tidemark completions bash > /etc/bash_completion.d/tidemark`.
#[derive(Args)]
pub struct Arguments {
    shell: Shell,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::command(), super::NAME, &mut script);
    super::print(&script)
}
