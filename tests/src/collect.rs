//! Segment's and PostHog's APIs on a real host: with the vendors' own clients, at the versions that `tests/clients` names, and
//! with what no client of theirs would send.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::json;
use tidemark_services::Proxy;

use crate::binary;
use crate::host::{Home, Host, now_ms, until};
use crate::trial::trial;

const DEFINITIONS: &str = r#"
[event]
time = "ts"
key = "user_id"
id = "id"
require = ["type"]

[dimensions]
type = {}
user = { field = "user_id" }
url = {}
locale = {}
ip = {}

[defaults]
by = ["type"]

[metrics]
events = { value = "count()", by = ["type", "user"] }
requests = { value = "count()", by = ["url", "locale", "ip"] }
revenue = "sum(props.amount)"
"#;

const WRITE_KEY: &str = "w";
const READ: (&str, &str) = ("authorization", "Bearer r");
/// A client that takes longer than this hangs.
const CLIENT_SECONDS_MAX: &str = "120";
/// As an overloaded host, or a proxy before it, answers; the host itself has taken what was sent.
const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";

/// What each client sends: 20 orders, 5 page views, 1 call that identifies somebody.
const SENT: f64 = 26.0;

struct Client {
    program: &'static str,
    /// As `scripts/clients.sh` calls what it needs.
    runs_in: &'static str,
}

const CLIENTS: &[Client] = &[
    Client { program: "segment_node.cjs", runs_in: "node" },
    Client { program: "segment_python.py", runs_in: "python" },
    Client { program: "posthog_node.cjs", runs_in: "node" },
    Client { program: "posthog_python.py", runs_in: "python" },
];

type Check = (&'static str, fn(&Client) -> Result<()>);
/// Without a client.
type Own = fn() -> Result<()>;

const CHECKS: &[Check] = &[
    ("counts each event once, whatever becomes of answers", counts_once),
    ("is told that its key is wrong", wrong_key),
];

pub fn trials() -> Vec<Trial> {
    let of_clients = CLIENTS.iter().flat_map(|client| {
        let reason = client.folder().err();
        if let Some(reason) = &reason {
            eprintln!("NOT RUN collect::{}: {reason}", client.program);
        }
        let missing = reason.is_some();
        CHECKS.iter().map(move |(name, check)| {
            trial(format!("collect::{} {name}", client.program), || check(client)).with_ignored_flag(missing)
        })
    });
    let own: [(&str, Own); 3] = [
        ("an event that is none costs itself alone", bad_neighbours),
        ("a clock that is wrong is put right", clocks),
        ("a client that stops halfway holds up nobody", slow_client),
    ];
    let own = own.into_iter().map(|(name, check)| trial(format!("collect::{name}"), check));
    of_clients.chain(own).collect()
}

impl Client {
    /// Where its packages are; the error says why they are not there.
    fn folder(&self) -> Result<String> {
        let output = Command::new(binary::root().join("scripts/clients.sh")).args(["has", self.runs_in]).output()?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        ensure!(output.status.success(), "{said}");
        Ok(said)
    }

    /// Lets it send everything, and gives what it printed.
    fn run(&self, url: &str, key: &str) -> Result<String> {
        let folder = self.folder()?;
        let interpreter = if self.runs_in == "node" { "node".to_owned() } else { format!("{folder}/bin/python") };
        let output = Command::new("timeout")
            .args(["--signal=KILL", CLIENT_SECONDS_MAX, &interpreter])
            .arg(binary::root().join("tests/clients").join(self.program))
            .args([url, key])
            .env("NODE_PATH", format!("{folder}/node_modules"))
            .output()
            .with_context(|| format!("{interpreter} does not start"))?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (said(&output.stdout), said(&output.stderr));
        println!("{}:\n{stdout}", self.program);
        ensure!(output.status.success() && stdout.contains("done "), "{}: {stdout}\n{stderr}", output.status);
        Ok(stdout)
    }
}

fn start() -> Result<(Home, Host)> {
    let home = Home::new(DEFINITIONS)?.with_flags(&["--write-key", WRITE_KEY, "--read-key", "r"]);
    let host = home.start_ready()?;
    Ok((home, host))
}

/// How many events there are of each value of a dimension.
fn by(host: &Host, metric: &str, dimension: &str) -> Result<BTreeMap<String, f64>> {
    let query = format!("metric={metric}&by={dimension}&from=-48h&to={}", now_ms() + 600_000);
    Ok(host.sums_with(&query, &[READ])?.into_iter().filter(|(_, sum)| *sum != 0.0).collect())
}

/// Waits until so many events are counted, and as many again were sent before.
fn counted(host: &Host, events: f64, duplicates: f64) -> Result<()> {
    until(&format!("{events} events and {duplicates} duplicates"), || {
        let status = host.get_json_with("/v1/status", &[READ])?;
        let total: f64 = by(host, "events", "type")?.values().sum();
        ensure!(total <= events, "{total} events, and {events} were sent");
        Ok((total == events && status["duplicates_total"] == json!(duplicates as u64)).then_some(()))
    })
}

/// The first answer is lost, the second is a 503, each after the host has made everything durable.
fn counts_once(client: &Client) -> Result<()> {
    let (home, host) = start()?;
    let port = host.url.rsplit(':').next().context("a port")?.parse()?;
    let proxy = Proxy::before(port)?;
    proxy.lose_answers(1);
    proxy.answer_instead(UNAVAILABLE);
    client.run(&format!("http://{}", proxy.address()), WRITE_KEY)?;
    ensure!(proxy.lost() == 2, "{} answers were kept from it", proxy.lost());
    counted(&host, SENT, 2.0 * SENT)?;
    let check = |host: &Host| -> Result<()> {
        let named = |pairs: &[(&str, f64)]| -> BTreeMap<String, f64> {
            pairs.iter().map(|(name, count)| (name.to_string(), *count)).collect()
        };
        let wanted = [
            ("events", "type", named(&[("order_completed", 20.0), ("page_view", 5.0), ("identify", 1.0)])),
            ("events", "user", named(&[("u0", 6.0), ("u1", 5.0), ("u2", 5.0), ("u3", 5.0), ("u4", 5.0)])),
            ("requests", "url", named(&[("", 21.0), ("https://shop.example/", 5.0)])),
            ("requests", "locale", named(&[("", 25.0), ("de-DE", 1.0)])),
            // These clients run on servers, whose address is nobody's.
            ("requests", "ip", named(&[("", 25.0), ("192.0.2.7", 1.0)])),
            ("revenue", "type", named(&[("order_completed", 50.0)])),
        ];
        for (metric, dimension, expected) in wanted {
            let found = by(host, metric, dimension)?;
            ensure!(found == expected, "{metric} by {dimension}: {found:?} instead of {expected:?}");
        }
        let rejects = host.get_json_with("/v1/rejects", &[READ])?;
        ensure!(rejects["total"] == 0, "{rejects}");
        Ok(())
    };
    check(&host)?;
    host.kill()?;
    check(&home.start_ready()?)
}

fn wrong_key(client: &Client) -> Result<()> {
    let (_home, host) = start()?;
    let said = client.run(&host.url, "wrong")?;
    ensure!(said.contains("error ") && said.contains("401"), "{said}");
    counted(&host, 0.0, 0.0)
}

fn bad_neighbours() -> Result<()> {
    let (_home, host) = start()?;
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let track = |more: &str| format!(r#"{{"type":"track","event":"A","userId":"u"{more}}}"#);
    let events = [
        track(""),
        // The event itself and `props` are two levels.
        track(&format!(r#","properties":{{"x":{}}}"#, nested(30))),
        track(&format!(r#","properties":{{"x":{}}}"#, nested(31))),
        track(&format!(r#","properties":{}"#, nested(100_000))),
        track(&format!(r#","properties":{{"x":"{}"}}"#, "x".repeat(70_000))),
        track(r#","timestamp":"yesterday""#),
        r#"{"type":"track","userId":"u"}"#.into(),
        r#"{"type":"track","event":"A","userId":{}}"#.into(),
        "[]".into(),
        track(r#","messageId":5"#),
    ];
    let list = events.join(",\n");
    let posthog = list.replace("userId", "distinct_id").replace("messageId", "uuid").replace("\"type\":\"track\",", "");
    for (path, body) in [
        ("/v1/batch", format!(r#"{{"batch":[{list}],"writeKey":"w"}}"#)),
        ("/batch/", format!(r#"{{"api_key":"w","batch":[{posthog}]}}"#)),
    ] {
        let answer = host.post_to(path, body.as_bytes(), &[])?;
        let said = answer.json()?;
        ensure!(answer.status == 200 && said["rejected"] == 7, "{path}: {} {said}", answer.status);
        let indexes: Vec<u64> =
            said["errors"].as_array().context("errors")?.iter().filter_map(|error| error["index"].as_u64()).collect();
        ensure!(indexes == [2, 3, 4, 5, 6, 7, 8], "{path}: {said}");
    }
    // The one with an id was sent twice.
    counted(&host, 5.0, 1.0)
}

/// A device whose clock is a day and a half behind sends what happened an hour ago.
fn clocks() -> Result<()> {
    let (_home, host) = start()?;
    let (behind, hour) = (36 * 3_600_000, 3_600_000);
    let now = now_ms();
    let happened = now - hour;
    let (timestamp, sent) = (happened - behind, now - behind);
    let segment = json!({"event": "A", "userId": "u", "timestamp": timestamp, "sentAt": sent, "writeKey": "w"});
    let posthog = json!({"event": "A", "distinct_id": "u", "timestamp": timestamp});
    let posthog = json!({"batch": [posthog], "sent_at": sent, "api_key": "w"});
    for (path, body) in [("/v1/track", segment), ("/batch/", posthog)] {
        let answer = host.post_to(path, body.to_string().as_bytes(), &[])?;
        ensure!(answer.status == 200, "{path}: {}", answer.text);
    }
    counted(&host, 2.0, 0.0)?;
    let (from, to) = (happened - 60_000, happened + 120_000);
    let then: f64 = host.sums_with(&format!("metric=events&from={from}&to={to}"), &[READ])?.values().sum();
    ensure!(then == 2.0, "{then} events at the time when they happened");
    Ok(())
}

fn slow_client() -> Result<()> {
    let (_home, host) = start()?;
    let address = host.url.trim_start_matches("http://");
    let halves: Vec<TcpStream> = ["/v1/batch", "/batch/"]
        .iter()
        .map(|path| {
            let mut stream = TcpStream::connect(address)?;
            let body = r#"{"api_key":"w","writeKey":"w","batch":[{"event":"A"},"#;
            write!(stream, "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{body}")?;
            Ok(stream)
        })
        .collect::<Result<_>>()?;
    let body = br#"{"event":"B","writeKey":"w"}"#;
    ensure!(host.post_to("/v1/track", body, &[])?.status == 200, "another client waits");
    for mut stream in halves {
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = String::new();
        // What the host says to a body that breaks off, if anything.
        let _ = stream.read_to_string(&mut answer);
        ensure!(!answer.contains(" 200 "), "half a body was taken: {answer}");
    }
    counted(&host, 1.0, 0.0)
}
