//! Processes that end with this one, however it ends.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result};

type Order = (Command, Sender<std::io::Result<Child>>);

/// Starts it with both outputs at the end of the log.
pub fn spawn(mut command: Command, log: &Path) -> Result<Child> {
    let log = File::options().create(true).append(true).open(log)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let program = command.get_program().to_owned();
    let (reply, answer) = channel();
    starter()
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, reply))
        .context("the starting thread ended")?;
    answer.recv().context("the starting thread ended")?.with_context(|| format!("{} does not start", program.display()))
}

/// A command that the kernel kills when the thread that started it is gone, where util-linux is there to ask for that.
pub fn dies_with_us(program: impl AsRef<std::ffi::OsStr>) -> Command {
    static HAS_SETPRIV: OnceLock<bool> = OnceLock::new();
    let probe = || Command::new("setpriv").arg("--version").output().is_ok_and(|output| output.status.success());
    if !*HAS_SETPRIV.get_or_init(probe) {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// The one thread that starts processes, as long as this process runs: a test's own thread ends before what tests share.
fn starter() -> &'static Mutex<Sender<Order>> {
    static STARTER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    STARTER.get_or_init(|| {
        let (orders, taken) = channel::<Order>();
        std::thread::spawn(move || taken.iter().for_each(|(mut command, reply)| drop(reply.send(command.spawn()))));
        Mutex::new(orders)
    })
}
