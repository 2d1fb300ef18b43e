//! Kafka as the log, with the state on the host's own disk: every event that was acknowledged, or that others put into the topic,
//! is counted exactly once, whatever happens to the host and to the broker. All against a real broker.

mod secure;
pub mod topic;

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use tidemark_services::{Kind, Service, missing};

use crate::host::{self, Home, Host, NDJSON, until};
use crate::kill::{self, Promise};
use crate::trial::trial;
use topic::{Put, Writer, put};

/// Rounds of kill -9, eight to a folder.
const ROUNDS: usize = 16;
const DEFINITIONS: &str = r#"
[event]
time = "ts"
key = "user"
id = "id"
require = ["type"]

[dimensions]
type = {}
client = { field = "ip" }
agent = { field = "user_agent" }

[metrics]
events = { value = "count()", by = ["type"] }
amount = { value = "sum(x)", by = ["type"] }
clients = { value = "count()", by = ["client"] }
agents = { value = "count()", by = ["agent"] }
users = { value = "uniq(user)", by = [] }
"#;

pub fn trials() -> Vec<Trial> {
    let reason = missing(Kind::Kafka);
    if let Some(reason) = &reason {
        eprintln!("NOT RUN kafka: {reason}");
    }
    let test = |name: &str, run: fn() -> Result<()>| trial(format!("kafka::{name}"), run);
    let mut trials = vec![
        test("programs_that_are_not_tidemark_are_read", foreign),
        test("what_cannot_be_counted_goes_to_the_dead_topic", dead_letters),
        test("a_key_is_counted_in_its_order_over_gaps", order_and_gaps),
        test("a_second_reading_judges_alike", judged_alike),
        test("a_broker_may_stop_and_come_back", broker_restart),
        test("a_small_memory_reads_a_long_topic", back_pressure),
        test("a_second_host_with_state_of_its_own_is_refused", second_host),
        test("a_folder_stays_with_its_log", other_log),
        test("a_topic_that_was_made_anew_is_refused", other_topic),
        test("options_reach_the_client", options),
        test("a_broker_may_want_tls_and_a_password", secure::tls_and_password),
    ];
    let kills = kill::folders(ROUNDS).into_iter().map(|(seed, with_ids)| {
        let kind = if with_ids { "with_ids" } else { "without_ids" };
        trial(format!("kafka::kill_{kind}_seed_{seed}"), move || killed(seed, with_ids))
    });
    trials.extend(kills);
    trials.into_iter().map(|trial| trial.with_ignored_flag(reason.is_some())).collect()
}

/// One broker for all tests that do it no harm.
pub fn broker() -> Result<String> {
    static BROKER: OnceLock<Mutex<Option<Service>>> = OnceLock::new();
    let mut broker = BROKER.get_or_init(Mutex::default).lock().expect("no panic");
    if broker.is_none() {
        *broker = Some(Service::start(Kind::Kafka)?);
    }
    Ok(broker.as_ref().context("started")?.address())
}

fn home(brokers: &str, topic: &str, definitions: &str) -> Result<Home> {
    let flags = ["--kafka", brokers, "--topic", topic, "--group", topic, "--checkpoint", "300ms"];
    Ok(Home::new(definitions)?.with_flags(&flags))
}

/// Batches here are many messages, so that one that was not acknowledged may count in part.
fn killed(seed: u64, with_ids: bool) -> Result<()> {
    let home = home(&broker()?, &format!("kill-{seed}"), kill::DEFINITIONS)?;
    kill::lives(&home, seed, Promise { with_ids, whole: false })
}

/// Sums of a metric over the last hours, by its one dimension.
fn sums(host: &Host, metric: &str, by: &str) -> Result<HashMap<String, f64>> {
    host.sums(&format!("metric={metric}&by={by}&from=-30h&to={}&step=1h", host::now_ms() + 3_600_000))
}

fn expect(host: &Host, metric: &str, by: &str, wanted: &[(&str, f64)]) -> Result<()> {
    let wanted: HashMap<String, f64> = wanted.iter().map(|(label, value)| ((*label).to_owned(), *value)).collect();
    let mut last = HashMap::new();
    let reached = until("the points", || {
        last = sums(host, metric, by)?;
        Ok((last == wanted).then_some(()))
    });
    reached.with_context(|| format!("{metric} by {by}: {last:?}, not {wanted:?}\n{}", host.log()))
}

fn event(id: &str, kind: &str, x: u32) -> String {
    format!(r#"{{"ts":{},"id":"{id}","user":"u{x}","type":"{kind}","x":{x}}}"#, host::now_ms())
}

/// Two more kinds of producers: `kcat` with keys and headers, and lines without any of it.
fn foreign() -> Result<()> {
    let (brokers, topic) = (broker()?, "foreign");
    let host = home(&brokers, topic, DEFINITIONS)?.start_ready()?;
    kcat(
        &brokers,
        topic,
        &["-K", "\t", "-H", "ip=10.0.0.1", "-H", "user_agent=kcat"],
        &[&format!("u1\t{}", event("1", "a", 1)), &format!("u2\t{}", event("2", "a", 2))],
    )?;
    let writer = Writer::new(&brokers, topic)?;
    // Several events in a value, one of them over several lines of its own, no key, no headers.
    writer.put(put(&format!("{}\n\n{}\n", event("3", "b", 3), event("4", "b", 4))))?;
    writer.put(put("{\n  \"id\": \"5\",\n  \"type\": \"b\",\n  \"x\": 5,\n  \"ip\": \"10.9.9.9\"\n}\n"))?;
    let headers = [("other", "x"), ("ip", "10.0.0.2")];
    writer.put(Put { headers: &headers, key: Some("u6"), ..put(&event("6", "c", 6)) })?;
    writer.flush()?;
    host.send(&event("7", "c", 7))?;
    // The same event once more, by another way.
    writer.put(Put { key: Some("u7"), ..put(&event("7", "c", 7)) })?;
    writer.flush()?;
    expect(&host, "amount", "type", &[("a", 3.0), ("b", 12.0), ("c", 13.0)])?;
    expect(&host, "events", "type", &[("a", 2.0), ("b", 3.0), ("c", 2.0)])?;
    let clients = [("", 2.0), ("10.0.0.1", 2.0), ("10.0.0.2", 1.0), ("10.9.9.9", 1.0), ("127.0.0.1", 1.0)];
    expect(&host, "clients", "client", &clients)?;
    let agents = sums(&host, "agents", "agent")?;
    ensure!(agents.get("kcat") == Some(&2.0) && agents.get("") == Some(&4.0), "{agents:?}");
    host.stop()
}

fn kcat(brokers: &str, topic: &str, arguments: &[&str], lines: &[&str]) -> Result<()> {
    use std::io::Write as _;
    let mut child = Command::new("timeout")
        .args(["60", "kcat", "-b", brokers, "-P", "-t", topic])
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .context("kcat does not start (apt-get install kcat)")?;
    let mut input = child.stdin.take().context("piped")?;
    lines.iter().try_for_each(|line| writeln!(input, "{line}"))?;
    drop(input);
    ensure!(child.wait()?.success(), "kcat failed");
    Ok(())
}

fn dead_letters() -> Result<()> {
    let (brokers, topic) = (broker()?, "letters");
    let home = home(&brokers, topic, DEFINITIONS)?.with_flags(&["--event-bytes-max", "1000"]);
    let host = home.start_ready()?;
    let writer = Writer::new(&brokers, topic)?;
    let to = |partition, value: &'static [u8]| Put { value: Some(value), partition: Some(partition), ..Put::default() };
    writer.put(to(0, b"{\"type\":\"a\xff\"}"))?;
    writer.put(to(0, b"hello"))?;
    writer.put(to(1, b""))?;
    writer.put(Put { partition: Some(1), ..Put::default() })?;
    let mixed = format!("{}\n{{\"no\":\"type\"}}\n{}", event("1", "good", 1), event("2", "good", 2));
    writer.put(Put { partition: Some(2), ..put(&mixed) })?;
    let long = format!(r#"{{"type":"long","filler":"{}"}}"#, "x".repeat(1000));
    writer.put(Put { partition: Some(2), ..put(&long) })?;
    let late = r#"{"type":"late","ts":"2001-01-01T00:00:00Z"}"#;
    writer.put(Put { partition: Some(3), ..put(late) })?;
    writer.flush()?;
    expect(&host, "events", "type", &[("good", 2.0)])?;
    let lossy = "{\"type\":\"a\u{fffd}\"}";
    let wanted = [
        ("the message is not valid UTF-8", "letters/0/0", lossy),
        ("not a JSON object", "letters/0/1", "hello"),
        ("the message is empty", "letters/1/0", ""),
        ("the message has no value", "letters/1/1", ""),
        ("required field `type` is missing", "letters/2/0", "{\"no\":\"type\"}"),
        ("longer than 1000 bytes", "letters/2/1", &long),
        ("late: older than 86400 s at its arrival", "letters/3/0", late),
    ];
    let found = until("the letters", || {
        let found = topic::read(&brokers, "letters.dead")?;
        Ok((found.len() >= wanted.len()).then_some(found))
    })?;
    ensure!(found.len() == wanted.len(), "{found:?}");
    for (reason, source, value) in wanted {
        let headers = vec![("reason".to_owned(), reason.to_owned()), ("source".to_owned(), source.to_owned())];
        let letter = topic::Found { value: value.to_owned(), headers };
        ensure!(found.contains(&letter), "{letter:?} is not in {found:?}");
    }
    let rejects = host.get_json("/v1/rejects?limit=20")?;
    ensure!(rejects["total"] == 7, "{rejects}");
    let metrics = host.get("/metrics")?.text;
    for line in
        ["tidemark_kafka_dead_letters_total 7", "tidemark_events_rejected_total 6", "tidemark_events_late_total 1"]
    {
        ensure!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    host.kill()?;
    // What cannot be counted is passed over, not stumbled on.
    let host = home.start_ready()?;
    expect(&host, "events", "type", &[("good", 2.0)])?;
    host.stop()
}

/// Of two events of one id the first counts, even where other transactions' markers and aborted messages lie between.
fn order_and_gaps() -> Result<()> {
    let (brokers, topic) = (broker()?, "gaps");
    let home = home(&brokers, topic, DEFINITIONS)?;
    let host = home.start_ready()?;
    let writer = Writer::in_transactions(&brokers, topic)?;
    let mut wanted = 0.0;
    for round in 0..20 {
        let id = |at: u32| format!("{}", round * 10 + at);
        let events: Vec<String> = (0..8).map(|at| event(&id(at / 2), "a", 1 + at % 2)).collect();
        let messages: Vec<Put<'_>> = events.iter().map(|it| Put { key: Some("k"), ..put(it) }).collect();
        writer.transaction(&messages, round % 3 != 2)?;
        wanted += if round % 3 == 2 { 0.0 } else { 4.0 };
    }
    expect(&host, "amount", "type", &[("a", wanted)])?;
    host.kill()?;
    // Ends on markers: nothing is behind them, and still the host is ready.
    let host = home.start_ready()?;
    expect(&host, "amount", "type", &[("a", wanted)])?;
    let again = event("1", "a", 9);
    writer.transaction(
        &[Put { key: Some("k"), ..put(&again) }, Put { key: Some("k"), ..put(&event("new", "a", 1)) }],
        true,
    )?;
    expect(&host, "amount", "type", &[("a", wanted + 1.0)])?;
    host.stop()
}

/// Late is judged by the message's timestamp: a host that reads all of it again later says the same.
fn judged_alike() -> Result<()> {
    let (brokers, topic) = (broker()?, "alike");
    let first = home(&brokers, topic, DEFINITIONS)?;
    let host = first.start_ready()?;
    let writer = Writer::new(&brokers, topic)?;
    let now = host::now_ms();
    let hours = |hours: i64| now - hours * 3_600_000;
    // Event time and arrival, hours ago: the second is late, the third ahead.
    for (id, (at, arrival)) in [(26, 3), (29, 3), (2, 3), (3, 3), (1, 0)].into_iter().enumerate() {
        let event = format!(r#"{{"ts":{},"id":"{id}","user":"u","type":"t{id}","x":1}}"#, hours(at));
        writer.put(Put { key: Some("u"), timestamp: Some(hours(arrival)), ..put(&event) })?;
    }
    // Without a time of its own it is at its arrival; the same id 11 minutes after is another event, 9 minutes after it is not.
    for (minutes, id) in [(0, "x"), (9, "x"), (11, "x"), (20, "x")] {
        let event = format!(r#"{{"id":"{id}","user":"u","type":"again","x":1}}"#);
        writer.put(Put { key: Some("u"), timestamp: Some(hours(2) + minutes * 60_000), ..put(&event) })?;
    }
    writer.flush()?;
    let wanted = [("t0", 1.0), ("t3", 1.0), ("t4", 1.0), ("again", 2.0)];
    expect(&host, "events", "type", &wanted)?;
    host.stop()?;
    let second = Home::new(DEFINITIONS)?.with_flags(&["--kafka", &brokers, "--topic", topic, "--group", "alike-2"]);
    let host = second.start_ready()?;
    let all = sums(&host, "events", "type")?;
    let wanted: HashMap<String, f64> = wanted.iter().map(|(label, value)| ((*label).to_owned(), *value)).collect();
    ensure!(all == wanted, "ready, and yet {all:?}");
    host.stop()
}

/// Clients come again while the broker is away; with ids every event counts once.
fn broker_restart() -> Result<()> {
    const BATCHES: usize = 400;
    let mut broker = Service::start(Kind::Kafka)?;
    let home = home(&broker.address(), "restart", DEFINITIONS)?;
    let host = home.start_ready()?;
    let (next, acknowledged, failed) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let client = || -> Result<()> {
        let agent = host::agent();
        loop {
            let at = next.fetch_add(1, Ordering::AcqRel);
            if at >= BATCHES {
                return Ok(());
            }
            let lines: Vec<String> = (0..5).map(|it| event(&format!("{at}-{it}"), "a", it)).collect();
            until("the batch to be taken", || {
                let answer = host::post(&agent, &host.url, lines.join("\n").as_bytes(), &[NDJSON])?;
                ensure!(matches!(answer.status, 202 | 429 | 503), "{} {}", answer.status, answer.text);
                Ok((answer.status == 202).then_some(()))
            })?;
            acknowledged.fetch_add(1, Ordering::AcqRel);
        }
    };
    std::thread::scope(|scope| -> Result<()> {
        let clients: Vec<_> =
            (0..3).map(|_| scope.spawn(|| client().inspect_err(|_| failed.store(true, Ordering::Release)))).collect();
        for (at, kill) in [(BATCHES / 4, true), (BATCHES / 2, false)] {
            until("batches to be acknowledged", || {
                Ok((acknowledged.load(Ordering::Acquire) >= at || failed.load(Ordering::Acquire)).then_some(()))
            })?;
            if kill {
                broker.kill()?;
            } else {
                broker.stop()?;
            }
            broker.start_again()?;
        }
        clients.into_iter().try_for_each(|client| client.join().expect("no panic"))
    })
    .with_context(|| host.log())?;
    expect(&host, "events", "type", &[("a", 5.0 * BATCHES as f64)])?;
    host.kill()?;
    let host = home.start_ready()?;
    expect(&host, "events", "type", &[("a", 5.0 * BATCHES as f64)])?;
    host.stop()
}

/// Far more waits in the topic than the host may hold.
fn back_pressure() -> Result<()> {
    const EVENTS: u32 = 60_000;
    let (brokers, topic) = (broker()?, "long");
    // Makes the topic.
    home(&brokers, topic, DEFINITIONS)?.start_ready()?.kill()?;
    let writer = Writer::new(&brokers, topic)?;
    for at in 0..EVENTS {
        let (id, key) = (at.to_string(), (at % 97).to_string());
        writer.put(Put { key: Some(&key), ..put(&event(&id, "a", 1)) })?;
    }
    writer.flush()?;
    let flags = ["--kafka", &brokers, "--topic", topic, "--group", "long-2", "--memory-bytes-max", "300000"];
    let home = Home::new(DEFINITIONS)?.with_flags(&flags);
    let host = home.start_ready()?;
    let all = sums(&host, "amount", "type")?;
    ensure!(all.get("a") == Some(&f64::from(EVENTS)), "{all:?}");
    host.stop()
}

fn second_host() -> Result<()> {
    let (brokers, topic) = (broker()?, "alone");
    let host = home(&brokers, topic, DEFINITIONS)?.start_ready()?;
    let second = home(&brokers, topic, DEFINITIONS)?;
    refused(&second.start()?, "this host keeps its state to itself")?;
    // The first one is not disturbed.
    host.send(&event("1", "a", 1))?;
    expect(&host, "events", "type", &[("a", 1.0)])?;
    host.stop()
}

fn refused(host: &Host, why: &str) -> Result<()> {
    // The log has the lives before it, too.
    until("the host to say why", || Ok(host.log().contains(why).then_some(()))).with_context(|| host.log())?;
    until("the host to be gone", || Ok(host.get("/health/live").is_err().then_some(())))
}

/// Positions of the journal mean nothing in a topic, nor the other way.
fn other_log() -> Result<()> {
    let brokers = broker()?;
    let home = Home::new(DEFINITIONS)?;
    let host = home.start_ready()?;
    host.send(&event("1", "a", 1))?;
    expect(&host, "events", "type", &[("a", 1.0)])?;
    host.stop()?;
    let home = home.with_flags(&["--kafka", &brokers, "--topic", "folder", "--group", "folder"]);
    let refused = home.start().err().context("refused")?.to_string();
    ensure!(refused.contains("was counted from the journal of this folder"), "{refused}");
    Ok(())
}

/// Deleted and created again, a topic begins at 0 once more: nobody can say what of it was counted.
fn other_topic() -> Result<()> {
    let (brokers, topic) = (broker()?, "anew");
    let home = home(&brokers, topic, DEFINITIONS)?;
    let host = home.start_ready()?;
    host.send(&event("1", "a", 1))?;
    expect(&host, "events", "type", &[("a", 1.0)])?;
    host.stop()?;
    topic::delete(&brokers, topic)?;
    refused(&home.start()?, "it is another topic of the same name")?;
    // It has grown past what was counted.
    let other = self::home(&brokers, topic, DEFINITIONS)?.start_ready()?;
    let many: String = (0..50).map(|id| event(&format!("n{id}"), "b", 1) + "\n").collect();
    other.send(&many)?;
    expect(&other, "events", "type", &[("b", 50.0)])?;
    other.stop()?;
    refused(&home.start()?, "arrived after all that was counted")
}

fn options() -> Result<()> {
    let brokers = broker()?;
    let flags = ["--kafka", &brokers, "--topic", "options", "--kafka-option", "no.such.setting=1"];
    let refused = Home::new(DEFINITIONS)?.with_flags(&flags).start().err().context("refused")?.to_string();
    ensure!(refused.contains("no.such.setting"), "{refused}");
    let home = home(&brokers, "options", DEFINITIONS)?;
    let host = home.with_flags(&["--kafka-option", "compression.codec=zstd"]).start_ready()?;
    host.send(&event("1", "a", 1))?;
    expect(&host, "events", "type", &[("a", 1.0)])?;
    host.stop()
}
