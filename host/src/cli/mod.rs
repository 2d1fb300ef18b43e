//! The command line: one file a command, no logic of its own.

mod bench;
mod check;
mod completions;
mod man;
mod plugin;
mod query;
mod replay;
mod run;
mod tap;
mod top;

mod client;
mod paint;
mod progress;
mod table;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::catalog::diagnostic::Diagnostic;

const NAME: &str = "tidemark";

/// Real-time analytics: events in, a live page out; metrics and plugins change while it runs.
#[derive(Parser)]
#[command(name = "tidemark", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Check(check::Arguments),
    Replay(replay::Arguments),
    Plugin(plugin::Arguments),
    Run(Box<run::Arguments>),
    Query(query::Arguments),
    Top(top::Arguments),
    Tap(tap::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
    Bench(bench::Arguments),
}

/// Everything that there is to type, for `--help` and what else is made of it.
fn command() -> clap::Command {
    Arguments::command()
}

/// What was looked at is not sound, or a host said no.
const EXIT_NO: u8 = 1;
/// A bad flag, or whatever keeps a command from its work, is one line and this.
const EXIT_CANNOT: u8 = 2;

pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let outcome = match arguments.command {
        Command::Check(arguments) => check::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Plugin(arguments) => plugin::run(&arguments),
        Command::Run(arguments) => run::run(*arguments),
        Command::Query(arguments) => query::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::Tap(arguments) => tap::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Man(arguments) => man::run(&arguments),
        Command::Bench(arguments) => bench::run(arguments),
    };
    outcome.unwrap_or_else(|error| {
        paint::error(&format!("{error:#}"));
        ExitCode::from(if error.is::<client::Refused>() { EXIT_NO } else { EXIT_CANNOT })
    })
}

/// To standard output, whole.
fn print(bytes: &[u8]) -> anyhow::Result<ExitCode> {
    print_on(bytes).map(|_| ExitCode::SUCCESS)
}

/// To standard output. False: its reader has seen enough, which is no mistake.
fn print_on(bytes: &[u8]) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What is wrong with the definitions, on standard error.
fn complain(diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        eprintln!("{}\n", paint::diagnostic(&diagnostic.rendered, paint::on_err()));
    }
}

/// Help and version as they are; an error as one line.
fn usage(error: &clap::Error) -> ExitCode {
    if error.exit_code() == 0 || error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(error.exit_code() as u8);
    }
    let text = error.to_string();
    let first: Vec<_> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    let line = first.join(" ");
    paint::error(line.strip_prefix("error: ").unwrap_or(&line));
    ExitCode::from(EXIT_CANNOT)
}
