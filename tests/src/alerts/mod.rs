//! Who is told of anomalies, from outside: one message at the start and one at the end, over restarts, reloads and targets
//! that do not answer.

mod clock;
mod receiver;
mod services;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tidemark_services::{Kind, missing};

use self::receiver::{HANGS, Receiver, TlsDoor};
use crate::host::{self, Home, Host, until};
use crate::trial::trial;

pub fn trials() -> Vec<Trial> {
    let test = |name: &str, run: fn() -> Result<()>| trial(format!("alerts::{name}"), run);
    vec![
        test("by_the_clock", clock::by_the_clock),
        test("a_stream_that_went_silent", clock::silence),
        test("one_message_at_the_start_and_one_at_the_end", start_and_end),
        test("a_restart_tells_nothing_twice_and_loses_no_end", restart),
        test("a_reload_keeps_what_was_told", reload),
        test("a_target_that_hangs_or_fails_delays_nothing", away),
        test("slack_and_alertmanager_get_what_they_read", others),
        test("https_by_the_machines_authorities", https),
        real("a_real_alertmanager_is_told", Kind::Alertmanager, services::alertmanager),
        real("one_of_two_hosts_tells", Kind::Kafka, services::two_hosts),
    ]
}

/// Counts as not run where the service cannot be had, and says why.
fn real(name: &str, kind: Kind, run: fn() -> Result<()>) -> Trial {
    let reason = missing(kind);
    if let Some(reason) = &reason {
        eprintln!("NOT RUN alerts::{name}: {reason}");
    }
    trial(format!("alerts::{name}"), run).with_ignored_flag(reason.is_some())
}

/// The sum of the open minute is above the bound, until an event takes it back: no minute has to pass.
const MEASURED: &str = r#"
[event]
time = "ts"

[dimensions]
country = {}

[metrics]
balance = { value = "sum(x)", unit = "EUR" }
other = "count()"

[anomalies]
balance = { rule = "threshold", above = 5, by = ["country"] }
"#;

fn home(notify: &str) -> Result<Home> {
    Ok(Home::new(&format!("{MEASURED}{notify}"))?.with_flags(&["--refresh", "50ms"]))
}

fn webhook(receiver: &Receiver) -> String {
    format!("[notify.oncall]\nwebhook = \"{}/hook\"\n", receiver.url())
}

/// Events of one minute, the one in which a test began.
struct Sender(i64);

impl Sender {
    fn new() -> Self {
        Self(host::now_ms() / 60_000 * 60_000)
    }

    fn send(&self, host: &Host, country: &str, x: i32) -> Result<()> {
        host.send(&format!("{{\"ts\":{},\"country\":\"{country}\",\"x\":{x}}}\n", self.0))
    }
}

/// Whoever was to be told is: so many looks later.
fn looks(host: &Host) -> Result<()> {
    const LOOKS: usize = 4;
    let mut seen = std::collections::BTreeSet::new();
    until("some looks", || {
        let status = host.get_json("/v1/alerts")?;
        seen.extend(status["looked_at"].as_i64());
        Ok((seen.len() > LOOKS).then_some(()))
    })
    .with_context(|| host.log())
}

fn series(message: &Value) -> Vec<String> {
    let alerts = message["alerts"].as_array().cloned().unwrap_or_default();
    alerts.iter().map(|alert| format!("{} {}", alert["status"], alert["labels"]["country"]).replace('"', "")).collect()
}

fn start_and_end() -> Result<()> {
    let receiver = Receiver::start(200)?;
    let (home, sender) = (home(&webhook(&receiver))?, Sender::new());
    let host = home.start_ready()?;
    sender.send(&host, "DE", 9)?;
    sender.send(&host, "US", 3)?;
    let first = receiver.nth(1)?;
    ensure!(first.path == "/hook" && first.authorization.is_none(), "{first:?}");
    let began = &first.body["alerts"][0];
    ensure!(series(&first.body) == ["firing DE"], "{first:?}");
    ensure!(first.body["metric"] == json!({"name": "balance", "title": "Balance", "unit": "EUR"}), "{first:?}");
    ensure!(
        (&began["value"], &began["upper"], &began["since"]) == (&json!(9.0), &json!(5.0), &json!(sender.0)),
        "{began}"
    );
    sender.send(&host, "FR", 8)?;
    sender.send(&host, "IT", 7)?;
    // Both in one message, or each in its own: the two may be seen at two looks.
    let told =
        || -> Vec<String> { receiver.taken().iter().skip(1).flat_map(|message| series(&message.body)).collect() };
    let mut both = until("both", || Ok(Some(told()).filter(|told| told.len() >= 2)))?;
    both.sort();
    ensure!(both == ["firing FR", "firing IT"], "{both:?}");
    looks(&host)?;
    let so_far = receiver.taken().len();
    ensure!(so_far <= 3, "{:#?}", receiver.taken());
    sender.send(&host, "DE", -9)?;
    let last = receiver.nth(so_far + 1)?;
    ensure!(series(&last.body) == ["resolved DE"] && last.body["status"] == "resolved", "{last:?}");
    ensure!(last.body["alerts"][0]["id"] == began["id"], "{last:?}");
    looks(&host)?;
    receiver.nth(so_far + 1)?;
    let numbers = host.get("/metrics")?.text;
    for line in [
        "tidemark_alerts_firing{target=\"oncall\"} 2".to_owned(),
        format!("tidemark_alert_messages_total{{target=\"oncall\"}} {}", so_far + 1),
    ] {
        ensure!(numbers.lines().any(|found| found == line), "{line} is missing in\n{numbers}");
    }
    host.stop()
}

fn restart() -> Result<()> {
    let receiver = Receiver::start(200)?;
    let (home, sender) = (home(&webhook(&receiver))?, Sender::new());
    let host = home.start_ready()?;
    sender.send(&host, "DE", 9)?;
    let first = receiver.nth(1)?;
    looks(&host)?;
    host.kill()?;
    let host = home.start_ready()?;
    looks(&host)?;
    host.stop()?;
    let host = home.start_ready()?;
    looks(&host)?;
    receiver.nth(1)?;
    // Nobody is there to be told of its end, and then the host is gone.
    receiver.answer_with(500);
    let tried = receiver.tried();
    sender.send(&host, "DE", -9)?;
    until("a try", || Ok((receiver.tried() > tried).then_some(())))?;
    host.kill()?;
    receiver.answer_with(200);
    let host = home.start_ready()?;
    let last = until("the end", || Ok(receiver.taken().into_iter().nth(1)))?;
    ensure!(series(&last.body) == ["resolved DE"], "{last:?}");
    ensure!(last.body["alerts"][0]["id"] == first.body["alerts"][0]["id"], "{last:?}");
    looks(&host)?;
    receiver.nth(2)?;
    host.stop()
}

fn reload() -> Result<()> {
    let (receiver, second) = (Receiver::start(200)?, Receiver::start(200)?);
    let (home, sender) = (home(&webhook(&receiver))?, Sender::new());
    let host = home.start_ready()?;
    let save = |text: &str, outcome: &str| -> Result<()> {
        let before = host.get_json("/v1/definitions")?["last"].clone();
        std::fs::write(home.metrics(), text)?;
        until("the new definitions", || {
            let last = host.get_json("/v1/definitions")?["last"].clone();
            Ok((last != before && last["outcome"] == outcome).then_some(()))
        })
        .with_context(|| host.log())
    };
    sender.send(&host, "DE", 9)?;
    receiver.nth(1)?;
    save(&format!("{MEASURED}[notify.oncall]\nwebhook = \"nowhere\"\n"), "rejected")?;
    looks(&host)?;
    // The same target elsewhere, and another rule: what was told stays told.
    let moved = format!("[notify.oncall]\nwebhook = \"{}\"\nwhen = [\"balance\"]\n", second.url());
    save(&format!("{MEASURED}other = {{ rule = \"threshold\", above = 0 }}\n{moved}"), "applied")?;
    looks(&host)?;
    ensure!(second.taken().is_empty() && receiver.taken().len() == 1, "told twice: {:#?}", second.taken());
    // Its rule is gone: nobody will see its end.
    let without = MEASURED.replace("balance = { rule", "other = { rule").replace("by = [\"country\"]", "by = []");
    save(&format!("{without}{}", moved.replace("balance", "other")), "applied")?;
    let last = second.nth(1)?;
    ensure!(series(&last.body) == ["resolved DE"], "{last:?}");
    host.stop()
}

fn away() -> Result<()> {
    let (healthy, hangs, fails) = (Receiver::start(200)?, Receiver::start(HANGS)?, Receiver::start(500)?);
    let nobody = tidemark_services::free_port()?;
    let notify = format!(
        "{}[notify.hangs]\nwebhook = \"{}\"\n[notify.fails]\nslack = \"{}/services/secret\"\n[notify.nobody]\nalertmanager = \"http://127.0.0.1:{nobody}\"\n",
        webhook(&healthy),
        hangs.url(),
        fails.url()
    );
    let (home, sender) = (home(&notify)?, Sender::new());
    let host = home.start_ready()?;
    for round in 1..=3 {
        sender.send(&host, "DE", 9)?;
        ensure!(series(&healthy.nth(2 * round - 1)?.body) == ["firing DE"]);
        sender.send(&host, "DE", -9)?;
        ensure!(series(&healthy.nth(2 * round)?.body) == ["resolved DE"]);
    }
    until("two tries", || Ok((fails.tried() >= 2).then_some(())))?;
    ensure!(hangs.tried() >= 1, "nobody has asked the one that hangs");
    let status = host.get_json("/v1/alerts")?;
    let target = |name: &str| {
        let targets = status["targets"].as_array().into_iter().flatten();
        targets.into_iter().find(|target| target["name"] == name).cloned().unwrap_or_default()
    };
    ensure!(target("oncall")["sent"] == 6 && target("oncall")["last_error"].is_null(), "{status}");
    ensure!(target("fails")["last_error"] == "500 Internal Server Error as told", "{status}");
    let refused = target("nobody")["last_error"].as_str().unwrap_or_default().to_owned();
    ensure!(refused.contains("cannot be reached") && refused.contains("refused"), "{status}");
    ensure!(!status.to_string().contains("secret"), "an address may be a secret: {status}");
    ensure!(host.get("/health/ready")?.status == 200);
    // What began and ended meanwhile is told once, as what is over.
    fails.answer_with(200);
    let told = until("what was missed", || Ok(fails.taken().into_iter().next()))?;
    let text = told.body["text"].as_str().unwrap_or_default();
    ensure!(text.starts_with("*Balance* is back to normal") && fails.taken().len() == 1, "{told:?}");
    host.stop()
}

fn others() -> Result<()> {
    let (slack, alertmanager) = (Receiver::start(200)?, Receiver::start(200)?);
    let notify = format!(
        "[notify.chat]\nslack = \"{}/services/T0/B0\"\n[notify.manager]\nalertmanager = \"http://us%65r:p%40ss@127.0.0.1:{}/prefix/\"\n",
        slack.url(),
        alertmanager.port
    );
    let (home, sender) = (home(&notify)?, Sender::new());
    let host = home.start_ready()?;
    sender.send(&host, "D<E", 9)?;
    let told = slack.nth(1)?;
    let text = told.body["text"].as_str().context("a text")?;
    ensure!(told.path == "/services/T0/B0", "{told:?}");
    ensure!(
        text.contains("*Balance* is anomalous (rule balance, threshold)\n• country = D&lt;E: 9 EUR (at most 5 EUR)"),
        "{text}"
    );
    let told = alertmanager.nth(1)?;
    ensure!(told.path == "/prefix/api/v2/alerts", "{told:?}");
    ensure!(told.authorization.as_deref() == Some("Basic dXNlcjpwQHNz"), "{told:?}");
    let labels = json!({"country": "D<E", "alertname": "balance", "metric": "balance", "rule": "threshold", "source": "tidemark"});
    ensure!(told.body[0]["labels"] == labels, "{told:?}");
    sender.send(&host, "D<E", -9)?;
    let ended = &alertmanager.nth(2)?.body[0];
    ensure!(ended["labels"] == labels && ended["startsAt"] == told.body[0]["startsAt"], "{ended}");
    ensure!(ended["endsAt"].as_str() <= told.body[0]["endsAt"].as_str(), "{ended}");
    ensure!(slack.nth(2)?.body["text"].as_str().is_some_and(|text| text.contains("is back to normal")));
    host.stop()
}

/// An address of https whose authority this machine knows.
fn https() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (key, certificate) = (file("key.pem"), file("certificate.pem"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", &key, "-out", &certificate])
        .output()
        .context("openssl does not start")?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let receiver = Receiver::start(200)?;
    let door = TlsDoor::before(receiver.port, &key, &certificate)?;
    let notify = format!("[notify.oncall]\nwebhook = \"https://localhost:{}/hook\"\n", door.port);
    let sender = Sender::new();
    let trusting = home(&notify)?.with_environment("SSL_CERT_FILE", &certificate);
    let host = trusting.start_ready()?;
    sender.send(&host, "DE", 9)?;
    ensure!(series(&receiver.nth(1)?.body) == ["firing DE"]);
    host.stop()?;
    let wary = home(&notify)?;
    let host = wary.start_ready()?;
    sender.send(&host, "DE", 9)?;
    let refused = until("the refusal", || {
        Ok(host.get_json("/v1/alerts")?["targets"][0]["last_error"].as_str().map(str::to_owned))
    })?;
    ensure!(refused.contains("certificate"), "{refused}");
    receiver.nth(1)?;
    host.stop()
}
