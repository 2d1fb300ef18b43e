//! `tidemark plugin`: the plugin author's loop. One file a command.

mod build;
mod cases;
mod inspect;
mod new;
mod source;
mod test;

use std::process::ExitCode;

use clap::Subcommand;

use crate::engine::extension::PluginError;

/// Write, build, test and look at plugins.
#[derive(clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    New(new::Arguments),
    Build(build::Arguments),
    Test(test::Arguments),
    Inspect(inspect::Arguments),
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Command::New(arguments) => new::run(arguments),
        Command::Build(arguments) => build::run(arguments),
        Command::Test(arguments) => test::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
    }
}

/// As one line for people.
fn plain(error: PluginError) -> anyhow::Error {
    match error.help {
        Some(help) => anyhow::anyhow!("{} ({help})", error.message),
        None => anyhow::anyhow!("{}", error.message),
    }
}

/// `1.3 MB`, `48 KB`, `12 bytes`.
fn size(bytes: usize) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{} KB", bytes.div_ceil(1_000)),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}
