//! Real Kafka, Redis, ClickHouse and Alertmanager for tests: each on free loopback ports in a temporary folder of its own, started, stopped,
//! killed, frozen, and started again on the same port and data. What is started ends when it is dropped, and with this process
//! however that ends. Knows nothing of Tidemark. `scripts/services.sh` brings the programs.
//!
//! A test of a part that needs one: `missing(Kind::Redis)` gives the reason why it cannot run; it is then to count as not run.

mod kind;
mod process;
mod proxy;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

pub use kind::{Kind, kafka_java, missing};
pub use proxy::Proxy;

/// Nothing here takes so long on the slowest machine.
pub const DEADLINE: Duration = Duration::from_secs(120);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);
/// Another program may take a port between our look and the service's.
const PORTS_TRIED: usize = 5;

/// A service that is running, or was.
pub struct Service {
    kind: Kind,
    /// Arguments, or for Kafka lines of `server.properties`, or for Alertmanager its webhook, beyond the usual ones.
    more: Vec<String>,
    folder: tempfile::TempDir,
    pub port: u16,
    second_port: u16,
    child: Option<Child>,
}

impl Service {
    pub fn start(kind: Kind) -> Result<Self> {
        Self::start_with(kind, &[])
    }

    /// With more arguments; for Kafka: with more lines of `server.properties`, in which `{port}` and `{second_port}` are its own
    /// (the second one its controller's).
    pub fn start_with(kind: Kind, more: &[&str]) -> Result<Self> {
        if let Some(reason) = missing(kind) {
            bail!("{reason}");
        }
        let more: Vec<String> = more.iter().map(ToString::to_string).collect();
        let mut tried = 0;
        loop {
            let (port, second_port) = (free_port()?, free_port()?);
            let folder = tempfile::tempdir()?;
            let mut service = Self { kind, more: more.clone(), folder, port, second_port, child: None };
            tried += 1;
            match service.start_again() {
                Ok(()) => return Ok(service),
                Err(_) if tried < PORTS_TRIED && service.log().to_lowercase().contains("address already in use") => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// On the same port and the data that are there; back when it answers.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.kind);
        let command = self.kind.command(self.folder.path(), self.port, self.second_port, &self.more)?;
        self.child = Some(process::spawn(command, &self.log_file())?);
        let started = Instant::now();
        while !self.answers(ANSWER_WITHIN) {
            if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                self.child = None;
                bail!("{} ended with {status} before it answered:\n{}", self.kind, self.log());
            }
            ensure!(started.elapsed() < DEADLINE, "{} does not answer:\n{}", self.kind, self.log());
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// What it kept is gone; for one that does not run.
    pub fn empty(&self) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs", self.kind);
        let data = self.kind.data(self.folder.path());
        if data.exists() { Ok(std::fs::remove_dir_all(data)?) } else { Ok(()) }
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal("TERM")?;
        let mut child = self.child.take().context("signalled above")?;
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if started.elapsed() > DEADLINE {
                child.kill()?;
                child.wait()?;
                bail!("{} does not stop:\n{}", self.kind, self.log());
            }
            std::thread::sleep(POLL);
        }
    }

    /// kill -9.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.kind))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGSTOP: connections stay open, nothing is answered.
    pub fn freeze(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// SIGCONT.
    pub fn thaw(&self) -> Result<()> {
        self.signal("CONT")
    }

    /// Asks whether it is at work.
    pub fn answers(&self, within: Duration) -> bool {
        self.kind.answers(self.port, within)
    }

    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// What it said, for whoever reads a failure.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn signal(&self, name: &str) -> Result<()> {
        let child = self.child.as_ref().with_context(|| format!("{} does not run", self.kind))?;
        let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status()?;
        ensure!(status.success(), "kill -{name}: {status}");
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// One that nobody listens on, for now.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
