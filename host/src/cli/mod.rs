//! The command line: one file a command, no logic of its own.

mod check;
mod plugin;
mod replay;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
}

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
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(EXIT_CANNOT)
    })
}

/// Help and version as they are; an error as one line.
fn usage(error: &clap::Error) -> ExitCode {
    if error.exit_code() == 0 || error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(error.exit_code() as u8);
    }
    let text = error.to_string();
    let first: Vec<_> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    eprintln!("{}", first.join(" "));
    ExitCode::from(EXIT_CANNOT)
}
