//! A running `tidemark run` on a data folder of its own: started, asked over HTTP, stopped or killed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use ureq::Agent;

use crate::binary;

/// Nothing that these tests wait for takes so long on the slowest machine.
pub const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// Definitions, plugins and data of one host, over all its starts.
pub struct Home {
    folder: tempfile::TempDir,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Home {
    pub fn new(definitions: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("plugins"))?;
        let home = Self { folder, flags: Vec::new(), environment: Vec::new() };
        std::fs::write(home.metrics(), definitions)?;
        Ok(home)
    }

    /// More flags for every start.
    pub fn with_flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(ToString::to_string));
        self
    }

    /// One more variable for every start.
    pub fn with_environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// These and no others for every start from now on.
    pub fn with_only_flags(self, flags: &[&str]) -> Self {
        Self { flags: Vec::new(), ..self }.with_flags(flags)
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn metrics(&self) -> PathBuf {
        self.folder.path().join("metrics.toml")
    }

    pub fn start(&self) -> Result<Host> {
        let log = self.folder.path().join("log");
        let file = std::fs::File::options().create(true).append(true).open(&log)?;
        let binary = binary::tidemark();
        let mut child = Command::new(&binary)
            .arg("run")
            .args(["--listen", "127.0.0.1:0", "--shards", "2", "--tick", "50ms"])
            .arg("--metrics")
            .arg(self.metrics())
            .arg("--plugins")
            .arg(self.folder.path().join("plugins"))
            .arg("--data")
            .arg(self.folder.path().join("data"))
            .args(&self.flags)
            // The end of the log is to say what happened.
            .env("RUST_BACKTRACE", "0")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .with_context(|| format!("{} does not start; `make build` makes it", binary.display()))?;
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (send, lines) = mpsc::channel();
        // Reads on to the end, so that the host never waits for a full pipe.
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| drop(send.send(line))));
        let mut host = Host { child, url: String::new(), agent: agent(), log };
        let started = Instant::now();
        while host.url.is_empty() {
            let left = DEADLINE.saturating_sub(started.elapsed());
            let Ok(line) = lines.recv_timeout(left) else {
                bail!("no `listening on` on standard output:\n{}", host.log())
            };
            if let Some((_, url)) = line.split_once("listening on ") {
                host.url = url.trim().trim_end_matches('/').to_owned();
            }
        }
        Ok(host)
    }

    /// Starts, and waits until everything that was acknowledged before is visible.
    pub fn start_ready(&self) -> Result<Host> {
        let host = self.start()?;
        until("ready", || Ok((host.get("/health/ready")?.status == 200).then_some(()))).with_context(|| host.log())?;
        Ok(host)
    }
}

pub struct Host {
    child: Child,
    pub url: String,
    agent: Agent,
    log: PathBuf,
}

pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.text).with_context(|| format!("{} {}", self.status, self.text))
    }
}

/// Connections are not shared between threads that post side by side.
pub fn agent() -> Agent {
    Agent::config_builder().http_status_as_error(false).timeout_global(Some(DEADLINE)).build().into()
}

impl Host {
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.get_with(path, &[])
    }

    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let request = self.agent.get(format!("{}{path}", self.url));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        read(request.call()?)
    }

    pub fn get_json(&self, path: &str) -> Result<Value> {
        self.get_json_with(path, &[])
    }

    pub fn get_json_with(&self, path: &str, headers: &[(&str, &str)]) -> Result<Value> {
        let answer = self.get_with(path, headers)?;
        ensure!(answer.status == 200, "GET {path}: {} {}", answer.status, answer.text);
        answer.json()
    }

    /// By any method, with a body of JSON.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
        let request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        let request = request.header("content-type", "application/json").body(body)?;
        read(self.agent.run(request)?)
    }

    pub fn post(&self, body: &[u8], headers: &[(&str, &str)]) -> Result<Answer> {
        post(&self.agent, &self.url, body, headers)
    }

    pub fn post_to(&self, path: &str, body: &[u8], headers: &[(&str, &str)]) -> Result<Answer> {
        post_to(&self.agent, &format!("{}{path}", self.url), body, headers)
    }

    /// Posts lines that must all be accepted.
    pub fn send(&self, lines: &str) -> Result<()> {
        let answer = self.post(lines.as_bytes(), &[NDJSON])?;
        ensure!(answer.status == 202 && answer.json()?["rejected"] == 0, "{} {}", answer.status, answer.text);
        Ok(())
    }

    /// The sum of all values of a query's series, and each series' sum by its first label.
    pub fn sums(&self, query: &str) -> Result<std::collections::HashMap<String, f64>> {
        self.sums_with(query, &[])
    }

    pub fn sums_with(&self, query: &str, headers: &[(&str, &str)]) -> Result<std::collections::HashMap<String, f64>> {
        let answer = self.get_json_with(&format!("/v1/query?{query}"), headers)?;
        let mut sums = std::collections::HashMap::new();
        for series in answer["series"].as_array().context("series")? {
            let labels = series["labels"].as_object().context("labels")?;
            let label = labels.values().next().and_then(Value::as_str).unwrap_or_default().to_owned();
            let points = series["points"].as_array().context("points")?;
            let sum: f64 = points.iter().filter_map(|point| point[1].as_f64()).sum();
            ensure!(sums.insert(label.clone(), sum).is_none(), "two series of {label:?}: {answer}");
        }
        Ok(sums)
    }

    /// kill -9.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGSTOP: it stands still until `thaw`.
    pub fn freeze(&self) -> Result<()> {
        self.signal("-STOP")
    }

    /// SIGCONT.
    pub fn thaw(&self) -> Result<()> {
        self.signal("-CONT")
    }

    fn signal(&self, signal: &str) -> Result<()> {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status()?;
        ensure!(status.success(), "kill {signal}: {status}");
        Ok(())
    }

    /// SIGTERM: it must finish what it took and exit with 0.
    pub fn stop(mut self) -> Result<()> {
        self.signal("-TERM")?;
        let status = until("the host to stop", || Ok(self.child.try_wait()?)).with_context(|| self.log())?;
        ensure!(status.code() == Some(0), "exit {status} after SIGTERM:\n{}", self.log());
        Ok(())
    }

    /// The end of what it said, for whoever reads a failure.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("the host's log ends with:\n{}", lines[lines.len().saturating_sub(30)..].join("\n"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

pub fn post(agent: &Agent, url: &str, body: &[u8], headers: &[(&str, &str)]) -> Result<Answer> {
    post_to(agent, &format!("{url}/v1/events"), body, headers)
}

fn post_to(agent: &Agent, url: &str, body: &[u8], headers: &[(&str, &str)]) -> Result<Answer> {
    let request = agent.post(url);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    read(request.send(body)?)
}

fn read(mut response: ureq::http::Response<ureq::Body>) -> Result<Answer> {
    let text = response.body_mut().with_config().limit(256 << 20).read_to_string()?;
    Ok(Answer { status: response.status().as_u16(), headers: response.headers().clone(), text })
}

/// Asks again and again until there is an answer, up to the deadline.
pub fn until<T>(what: &str, ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    until_within(DEADLINE, what, ask)
}

/// For what the hosts themselves have longer deadlines for.
pub fn until_within<T>(deadline: Duration, what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().with_context(|| format!("waiting for {what}"))? {
            return Ok(answer);
        }
        ensure!(started.elapsed() < deadline, "waited {deadline:?} for {what}");
        std::thread::park_timeout(POLL);
    }
}

/// Unix milliseconds, now.
pub fn now_ms() -> i64 {
    tidemark::time::Clock::System.now()
}
