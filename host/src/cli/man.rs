//! `tidemark man`: the manual, made from what `--help` is made from.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::{Args, Command};
use clap_mangen::Man;

/// Print a page of the manual: `tidemark man plugin test | man -l -`.
#[derive(Args)]
pub struct Arguments {
    /// The command that the page is about; the program as a whole, if not given.
    command: Vec<String>,
    /// Write all pages into this folder, one file a command.
    #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
    out: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut root = super::command().disable_help_subcommand(true);
    root.build();
    if let Some(folder) = &arguments.out {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        write_all(&root, folder).with_context(|| format!("cannot write to {}", folder.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut command = &root;
    for name in &arguments.command {
        let inner = command.find_subcommand(name);
        let names: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
        ensure!(inner.is_some(), "there is no command `{name}` here; there are: {}", names.join(", "));
        command = inner.unwrap_or(command);
    }
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    super::print(&page)
}

fn write_all(command: &Command, folder: &std::path::Path) -> std::io::Result<()> {
    Man::new(command.clone()).generate_to(folder)?;
    command.get_subcommands().try_for_each(|inner| write_all(inner, folder))
}
