//! `tidemark tap`, `tidemark top` and `GET /v1/fields` against a real host.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Check, exits};
use crate::binary;
use crate::host::{Home, Host, NDJSON, now_ms, until};

pub const CHECKS: &[Check] = &[
    ("fields_are_those_of_events", fields),
    ("tap_follows_a_reload_and_ends_with_the_host", reloaded),
    ("tap_refuses_what_is_no_condition", conditions),
    ("taps_are_few_and_a_slow_reader_delays_nobody", slow),
];

/// Not run where the plugin was not built.
pub const CHECKS_WITH_PLUGIN: &[Check] =
    &[("tap_shows_events_after_enrichment", enriched), ("top_prints_one_table_into_a_pipe", top)];
pub const PLUGIN: &str = "user_agent";

const DEFINITIONS: &str = r#"
[event]
time = "ts"
id = "id"
require = ["type"]

[enrich.device]
plugin = "user_agent"
input = ["user_agent"]
output = ["device", "browser"]

[dimensions]
device = {}
category = { field = "props.category" }

[metrics]
events = "count()"
"#;

const PLAIN: &str = "[event]\nid = \"id\"\n\n[dimensions]\nkind = {}\n\n[metrics]\nevents = \"count()\"\n";

const PHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Mobile/15E148 Safari/604.1";

fn home_with_plugin() -> Result<Home> {
    let plugins = binary::plugins_with(PLUGIN).context("plugins/user_agent.wasm: `make build` makes it")?;
    let home = Home::new(DEFINITIONS)?;
    std::fs::copy(plugins.join("user_agent.wasm"), home.path().join("plugins/user_agent.wasm"))?;
    Ok(home)
}

fn fields() -> Result<()> {
    let home = Home::new(PLAIN)?;
    let host = home.start_ready()?;
    host.send("{\"kind\":\"a\",\"props\":{\"ms\":1.5},\"id\":1}\n")?;
    let told = until("fields", || {
        let told = host.get_json("/v1/fields")?;
        Ok((told["sampled"].as_u64() > Some(0)).then_some(told))
    })?;
    let field = |name: &str| {
        let fields = told["fields"].as_array().into_iter().flatten();
        fields.clone().find(|field| field["name"] == name).with_context(|| format!("{name} in {told}"))
    };
    ensure!(field("props.ms")?["types"] == json!({"number": 1}) && field("props.ms")?["examples"] == json!([1.5]));
    ensure!(field("kind")?["read"] == true && field("props.ms")?["read"] == false, "{told}");
    ensure!(field("kind")?["share"] == 1.0 && field("kind")?["distinct"] == 1, "{told}");
    host.stop()
}

/// A tap on a running host, its lines as they come.
struct Tap {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Tap {
    fn open(host: &Host, more: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary::tidemark());
        let mut child = command
            .args(["tap", "--url", &host.url])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| drop(send.send(line))));
        Ok(Self { child, lines })
    }

    /// How it exits, and what it said.
    fn end(mut self) -> Result<(Option<i32>, String)> {
        let status = until("the tap to end", || Ok(self.child.try_wait()?))?;
        let mut said = String::new();
        std::io::Read::read_to_string(&mut self.child.stderr.take().expect("piped"), &mut said)?;
        Ok((status.code(), said))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn taps(host: &Host) -> Result<f64> {
    let metrics = host.get("/metrics")?.text;
    let line = metrics.lines().find_map(|line| line.strip_prefix("tidemark_taps ")).context("tidemark_taps")?;
    Ok(line.parse()?)
}

/// Sends until the tap has shown one: which events are picked is the host's affair.
fn shown(host: &Host, tap: &Tap, event: impl Fn(u64) -> String) -> Result<Value> {
    let mut number = 0;
    until("an event in the tap", || {
        number += 1;
        let answer = host.post(event(number).as_bytes(), &[NDJSON, ("user-agent", PHONE)])?;
        ensure!(answer.status == 202 || answer.status == 400, "{} {}", answer.status, answer.text);
        match tap.lines.recv_timeout(std::time::Duration::from_millis(50)) {
            Ok(line) => Ok(Some(serde_json::from_str(&line).with_context(|| line)?)),
            Err(_) => Ok(None),
        }
    })
}

fn enriched() -> Result<()> {
    let home = home_with_plugin()?;
    let host = home.start_ready()?;
    let tap = Tap::open(&host, &["--where", "device = 'mobile' and category = 'toys'", "--limit", "1"])?;
    let before = now_ms();
    let line = shown(&host, &tap, |n| {
        // Of these only the first is counted and passes.
        format!(
            "{{\"type\":\"a\",\"id\":{n},\"props\":{{\"category\":\"toys\"}}}}\n{{\"type\":\"a\",\"props\":{{\"category\":\"books\"}}}}\n\
             {{\"props\":{{\"category\":\"toys\"}}}}\n{{\"type\":\"a\",\"id\":{n},\"props\":{{\"category\":\"toys\"}}}}\n"
        )
    })?;
    ensure!(line["event"]["props"]["category"] == "toys" && line["event"]["type"] == "a", "{line}");
    ensure!(line["filled"]["device"] == "mobile" && line["filled"]["browser"].is_string(), "{line}");
    ensure!(line["filled"]["user_agent"] == PHONE && line["filled"]["ip"] == "127.0.0.1", "{line}");
    ensure!(line["arrival"].as_i64() >= Some(before), "{line}");
    let (status, said) = tap.end()?;
    ensure!(status == Some(0), "{said}");
    until("the tap to be let go", || Ok((taps(&host)? == 0.0).then_some(())))?;
    host.stop()
}

fn reloaded() -> Result<()> {
    let home = Home::new(PLAIN)?;
    let host = home.start_ready()?;
    let tap = Tap::open(&host, &["--where", "kind = 'b'"])?;
    let event = |n: u64| format!("{{\"id\":{n},\"kind\":\"a\",\"other\":\"b\"}}\n{{\"id\":\"b{n}\",\"kind\":\"b\"}}\n");
    ensure!(shown(&host, &tap, event)?["event"]["kind"] == "b");
    // Now the name means another field: the tap reads it as the definitions do.
    let renamed = PLAIN.replace("kind = {}", "kind = { field = \"other\" }");
    std::fs::write(home.metrics(), renamed)?;
    until("the reload", || Ok((host.get_json("/v1/definitions")?["revision"] == 2).then_some(())))?;
    let event = |n: u64| event(n + 1_000_000);
    until("the other field", || Ok((shown(&host, &tap, event)?["event"]["other"] == "b").then_some(())))?;
    host.stop()?;
    let (status, said) = tap.end()?;
    ensure!(status == Some(2) && said.contains("the host has closed the tap"), "{status:?} {said}");
    Ok(())
}

fn conditions() -> Result<()> {
    let home = Home::new(PLAIN)?.with_flags(&["--read-key", "r"]);
    let host = home.start_ready()?;
    let tap = |arguments: &[&str]| binary::run(&[&["tap", "--url", &host.url], arguments].concat());
    exits(&tap(&[])?, 1, "a read key is needed")?;
    let keyed = |condition: &str| tap(&["--read-key", "r", "--where", condition]);
    exits(&keyed("kind = purchase")?, 1, "at character")?;
    exits(&keyed("")?, 1, "the condition is empty")?;
    exits(&keyed("count() > 3")?, 1, "aggregate")?;
    exits(&keyed("kind = 'a' group by kind")?, 1, "Expected: an operator or the end.")?;
    exits(&keyed(&format!("kind = '{}'", "x".repeat(20_000)))?, 1, "bytes long")?;
    let answer = host.get_with("/v1/tap?wher=1", &[("authorization", "Bearer r")])?;
    ensure!(answer.status == 400 && answer.json()?["error"]["code"] == "unknown_parameter", "{}", answer.text);
    host.stop()
}

fn slow() -> Result<()> {
    let home = Home::new(PLAIN)?;
    let host = home.start_ready()?;
    let address = host.url.trim_start_matches("http://");
    // These ask and never read.
    let open = || -> Result<std::net::TcpStream> {
        let mut stream = std::net::TcpStream::connect(address)?;
        std::io::Write::write_all(&mut stream, b"GET /v1/tap HTTP/1.1\r\nHost: x\r\n\r\n")?;
        Ok(stream)
    };
    let readers: Vec<_> = (0..8).map(|_| open()).collect::<Result<_>>()?;
    until("eight taps", || Ok((taps(&host)? == 8.0).then_some(())))?;
    let refused = host.get("/v1/tap")?;
    ensure!(refused.status == 503 && refused.json()?["error"]["code"] == "unavailable", "{}", refused.text);
    let filler = "x".repeat(20_000);
    for round in 0..200 {
        let lines: String = (0..20).map(|n| format!("{{\"id\":\"{round}-{n}\",\"text\":\"{filler}\"}}\n")).collect();
        host.send(&lines)?;
    }
    crate::http::counted(&host, 4_000.0)?;
    drop(readers);
    until("the taps to be let go", || Ok((taps(&host)? == 0.0).then_some(())))?;
    host.stop()
}

fn top() -> Result<()> {
    let home = home_with_plugin()?.with_flags(&["--read-key", "r"]);
    let host = home.start_ready()?;
    let output = binary::run(&["top", "--url", &host.url, "--read-key", "r"])?;
    exits(&output, 0, "")?;
    for words in ["ready\n", "events/s", "lag", "shard", "connections", "user_agent", "live"] {
        ensure!(output.stdout.contains(words), "`{words}` is missing in\n{}", output.stdout);
    }
    ensure!(!output.stdout.contains('\u{1b}'), "{:?}", output.stdout);
    let shards = output.stdout.lines().filter(|line| line.trim_start().starts_with(['0', '1'])).count();
    ensure!(shards >= 2, "{}", output.stdout);
    exits(&binary::run(&["top", "--url", &host.url])?, 1, "a read key is needed")?;
    host.stop()
}
