//! The protocol without sockets: sessions over a fake store, with time as an argument. One test goes over a real connection.

mod connection;
mod resume;
mod told;
mod wire;

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::{Value, json};

use super::session::{Due, Session};
use super::*;
use crate::catalog::definitions::{AnomalyRule, Definitions, Difference, MetricKind, Outcome, RuleKind};
use crate::catalog::diagnostic::Diagnostic;
use crate::serve::query::fake::{Event, World};
use crate::time::{MINUTE_MS, SECOND_MS};

/// A Monday at noon.
const NOON: Millis = 1_704_110_400_000;

struct Host {
    world: Arc<World>,
    active: Arc<ArcSwap<Active>>,
    live: Arc<Live>,
}

impl Host {
    fn new() -> Self {
        let world = Arc::new(World::new());
        let active = Arc::new(ArcSwap::from_pointee(world.active.clone()));
        let evaluator = Arc::new(Evaluator::new(world.clone()));
        let live = Live::new(evaluator, active.clone(), Arc::default(), false);
        Self { world, active, live }
    }

    fn add(&self, at: Millis, kind: &'static str, country: &'static str) {
        self.world.add([Event { at, text: [kind, country, "mobile"], amount: Some(10.0), user: 1 }]);
    }

    fn refresh(&self, now: Millis) {
        self.world.close_until(crate::time::Minute::of(now - 10 * SECOND_MS).start());
        self.live.refresh(now);
    }

    /// Puts other definitions in force.
    fn change(&self, change: impl FnOnce(&mut Definitions)) {
        let mut active = (**self.active.load()).clone();
        let old = &active.definitions;
        let mut definitions = Definitions {
            digest: old.digest.clone(),
            text: old.text.clone(),
            plan: old.plan.clone(),
            metrics: old.metrics.clone(),
            dimensions: old.dimensions.clone(),
            headline: old.headline.clone(),
            rules: old.rules.clone(),
            notify: vec![],
            plugin_uses: vec![],
        };
        change(&mut definitions);
        active.definitions = Arc::new(definitions);
        active.revision += 1;
        let difference = Difference { added: vec!["orders".into()], ..Difference::default() };
        active.last = Arc::new(Outcome::Applied { at: 1, difference });
        self.active.store(Arc::new(active));
    }
}

/// A client that reads everything at once.
struct Client {
    session: Session,
    now: Millis,
}

impl Client {
    fn new(host: &Host, now: Millis) -> Self {
        Self { session: Session::new(host.live.clone()), now }
    }

    fn say(&mut self, message: Value) -> Vec<Value> {
        if let Some(topic) = self.session.receive(&message.to_string()) {
            self.session.live.refresh_topic(&topic, self.now);
        }
        self.frames()
    }

    fn frame(&mut self) -> Option<Value> {
        loop {
            match self.session.due()? {
                Due::Send(frame) => return Some(serde_json::from_slice(&[frame.head, frame.body].concat()).unwrap()),
                Due::Encode(topic, wanted) => assert!(topic.encode(wanted)),
            }
        }
    }

    fn frames(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.frame()).collect()
    }
}

fn subscribe(id: &str, metric: &str, by: &[&str]) -> Value {
    json!({"op": "subscribe", "id": id, "metric": metric, "range": "1h", "by": by})
}

#[test]
fn snapshot_then_what_changed() {
    let host = Host::new();
    let t = |minutes: Millis| NOON + minutes * MINUTE_MS;
    host.add(t(-2), "x", "US");
    host.refresh(NOON + 20 * SECOND_MS);
    let mut client = Client::new(&host, NOON + 20 * SECOND_MS);
    let labels = |country: &str| json!({"labels": {"country": country}});
    let mut snapshot = client.say(subscribe("a", "events", &["country"]));
    assert!(snapshot[0].as_object_mut().unwrap().remove("epoch").is_some_and(|epoch| epoch.is_string()));
    assert_eq!(
        snapshot,
        [
            json!({"op": "snapshot", "id": "a", "seq": 1, "revision": 3, "step_ms": 60_000, "provisional_from": t(0), "series": [
            {"labels": {"country": "US"}, "points": [[t(-2), 1], [t(-1), 0]], "anomalies": []}]})
        ]
    );
    host.refresh(NOON + 30 * SECOND_MS);
    assert!(client.frames().is_empty(), "nothing changed, nothing is said");
    host.add(t(0) + 30 * SECOND_MS, "x", "DE");
    host.add(t(0) + 30 * SECOND_MS, "x", "US");
    host.refresh(NOON + 40 * SECOND_MS);
    assert_eq!(
        client.frames(),
        [json!({"op": "delta", "id": "a", "prev": 1, "seq": 3, "points": [[0, t(0), 1], [1, t(0), 1]],
            "new_series": [labels("DE")], "provisional_from": t(0)})]
    );
    // A late event corrects a closed minute, and begins a series earlier.
    host.add(t(-2), "x", "DE");
    host.refresh(NOON + 50 * SECOND_MS);
    assert_eq!(
        client.frames(),
        [json!({"op": "delta", "id": "a", "prev": 3, "seq": 4, "points": [[1, t(-2), 1], [1, t(-1), 0]],
            "new_series": [], "provisional_from": t(0)})]
    );
    // Time alone closes a minute and fills it.
    host.refresh(NOON + 75 * SECOND_MS);
    assert_eq!(
        client.frames(),
        [
            json!({"op": "delta", "id": "a", "prev": 4, "seq": 4, "points": [], "new_series": [], "provisional_from": t(1)})
        ]
    );
    host.refresh(NOON + 135 * SECOND_MS);
    assert_eq!(client.frames()[0]["points"], json!([[0, t(1), 0], [1, t(1), 0]]));
    assert!(client.say(json!({"op": "unsubscribe", "id": "a"})).is_empty());
    host.add(t(2), "x", "US");
    host.refresh(NOON + 145 * SECOND_MS);
    assert!(client.frames().is_empty());
}

#[test]
fn indexes_outlive_their_series() {
    let host = Host::new();
    host.add(NOON - 59 * MINUTE_MS, "x", "DE");
    host.add(NOON, "x", "US");
    host.refresh(NOON + SECOND_MS);
    let mut early = Client::new(&host, NOON + SECOND_MS);
    let snapshot = early.say(subscribe("a", "mean", &["country"])).remove(0);
    assert_eq!(snapshot["series"].as_array().unwrap().len(), 2, "{snapshot}");
    host.add(NOON + 5 * MINUTE_MS, "x", "FR");
    host.refresh(NOON + 5 * MINUTE_MS);
    let delta = early.frames().remove(0);
    assert_eq!((&delta["new_series"][0]["labels"]["country"], &delta["points"][2][0]), (&json!("FR"), &json!(2)));
    let mut later = Client::new(&host, NOON + 5 * MINUTE_MS);
    let snapshot = later.say(subscribe("b", "mean", &["country"])).remove(0);
    let series: Vec<_> =
        snapshot["series"].as_array().unwrap().iter().map(|s| (&s["labels"]["country"], &s["points"][0])).collect();
    assert_eq!(series[0], (&json!("DE"), &Value::Null), "gone from the range, still number 0");
    assert_eq!((series[1].0, series[2].0), (&json!("US"), &json!("FR")));
}

/// What a client knows of one subscription from what it was told.
#[derive(Default)]
struct Mirror {
    /// Labels by index.
    labels: Vec<String>,
    points: HashMap<(String, i64), Value>,
    seq: Value,
}

impl Mirror {
    fn apply(&mut self, frame: &Value) {
        let list = |value: &Value| value.as_array().unwrap().clone();
        let labels =
            |series: &Value| list(series).iter().map(|series| series["labels"].to_string()).collect::<Vec<_>>();
        if frame["op"] == "snapshot" {
            self.labels = labels(&frame["series"]);
            for (label, series) in self.labels.iter().zip(list(&frame["series"])) {
                let points = list(&series["points"]);
                self.points.extend(points.iter().map(|p| ((label.clone(), p[0].as_i64().unwrap()), p[1].clone())));
            }
        } else {
            assert_eq!((&frame["op"], &frame["prev"]), (&json!("delta"), &self.seq), "no gap");
            self.labels.extend(labels(&frame["new_series"]));
            for point in list(&frame["points"]) {
                let label = self.labels[point[0].as_u64().unwrap() as usize].clone();
                self.points.insert((label, point[1].as_i64().unwrap()), point[2].clone());
            }
        }
        self.seq = frame["seq"].clone();
    }
}

#[test]
fn deltas_rebuild_what_a_new_snapshot_says() {
    use rand::{RngExt, SeedableRng};
    let mut random = rand::rngs::StdRng::seed_from_u64(5);
    let host = Host::new();
    let mut now = NOON;
    let mut client = Client::new(&host, now);
    let mut mirrors: HashMap<String, Mirror> = HashMap::new();
    let subscriptions = [("events", vec!["country"]), ("users", vec![]), ("nested", vec!["country"]), ("rate", vec![])];
    let mut frames: Vec<Value> = subscriptions.iter().flat_map(|(m, by)| client.say(subscribe(m, m, by))).collect();
    for round in 0..60 {
        for frame in frames.drain(..) {
            mirrors.entry(frame["id"].as_str().unwrap().to_owned()).or_default().apply(&frame);
        }
        // Whoever comes now is told the same by one snapshot.
        for (metric, by) in &subscriptions {
            let mut fresh = Mirror::default();
            Client::new(&host, now).say(subscribe("f", metric, by)).iter().for_each(|frame| fresh.apply(frame));
            for (point, value) in &fresh.points {
                assert_eq!(mirrors[*metric].points.get(point), Some(value), "{metric} {point:?} in round {round}");
            }
        }
        now += random.random_range(1..40) * SECOND_MS;
        for _ in 0..random.random_range(0..4) {
            let back = if random.random_bool(0.3) { random.random_range(0..50) * MINUTE_MS } else { 0 };
            let country = ["US", "DE", "FR"][random.random_range(0..3)];
            host.add(now - back, ["x", "error"][random.random_range(0..2)], country);
        }
        host.refresh(now);
        frames = client.frames();
    }
}

#[test]
fn equal_subscriptions_share_one_computation() {
    let host = Host::new();
    host.add(NOON, "x", "US");
    let mut clients: Vec<Client> = (0..5).map(|_| Client::new(&host, NOON)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.say(subscribe(&format!("c{number}"), "events", &[]))[0]["op"], "snapshot");
    }
    assert_eq!(host.world.reads.lock().unwrap().len(), 1);
    host.add(NOON, "x", "US");
    host.refresh(NOON + SECOND_MS);
    assert_eq!(host.world.reads.lock().unwrap().len(), 2);
    let mut bodies = clients.iter_mut().map(|client| match client.session.due() {
        Some(Due::Send(frame)) => frame.body,
        _ => panic!("a delta is due"),
    });
    let first = bodies.next().unwrap();
    assert!(bodies.all(|body| body.as_ptr() == first.as_ptr()), "the same bytes, not equal ones");
}

#[test]
fn who_is_slow_is_skipped_forward() {
    let host = Host::new();
    host.add(NOON, "x", "US");
    let mut client = Client::new(&host, NOON);
    client.say(subscribe("a", "events", &[]));
    let more = |times: usize| {
        for _ in 0..times {
            host.add(NOON, "x", "US");
            host.refresh(NOON + SECOND_MS);
        }
    };
    more(3);
    let frames = client.frames();
    assert_eq!(frames.iter().map(|frame| frame["op"].as_str().unwrap()).collect::<Vec<_>>(), ["delta"; 3]);
    assert!(frames.windows(2).all(|pair| pair[0]["seq"] == pair[1]["prev"]));
    more(50);
    let frames = client.frames();
    assert_eq!(frames.len(), 1, "nothing is queued for it");
    assert_eq!((&frames[0]["op"], &frames[0]["series"][0]["points"][0][1]), (&json!("snapshot"), &json!(54)));
    assert_eq!(host.live.telemetry.serve.live_skips.get(), 1);
}

#[test]
fn mistakes_do_not_end_the_connection() {
    let host = Host::new();
    let mut client = Client::new(&host, NOON);
    let cases = [
        (subscribe("a", "evnts", &[]), "unknown_metric"),
        (subscribe("a", "events", &["contry"]), "unknown_dimension"),
        (json!({"op": "resume", "id": "a", "seq": 1}), "invalid_message"),
        (json!("hello"), "invalid_message"),
    ];
    for (message, code) in cases {
        let frames = client.say(message);
        assert_eq!((&frames[0]["op"], &frames[0]["code"], frames.len()), (&json!("error"), &json!(code), 1));
    }
    assert_eq!(client.say(subscribe("a", "events", &[]))[0]["op"], "snapshot");
    for number in 0..300 {
        client.say(subscribe(&number.to_string(), "events", &[]));
    }
    assert_eq!(host.live.telemetry.serve.live_subscriptions.get(), 256);
    assert_eq!(client.say(subscribe("one more", "events", &[]))[0]["code"], "too_many_subscriptions");
    assert_eq!(
        client.say(subscribe("7", "errors", &[]))[0]["op"],
        "snapshot",
        "an id again replaces what it stood for"
    );
    drop(client);
    assert_eq!(host.live.telemetry.serve.live_subscriptions.get(), 0);
    let reads = host.world.reads.lock().unwrap().len();
    host.add(NOON, "x", "US");
    host.refresh(NOON);
    assert_eq!(host.world.reads.lock().unwrap().len(), reads, "nobody listens, nothing is computed");
    host.refresh(NOON + ALONE_MAX_MS);
    assert!(host.live.topics.lock().unwrap().is_empty(), "nobody came back, nothing is kept");
}

#[test]
fn new_definitions_reach_every_subscription() {
    let host = Host::new();
    host.add(NOON, "x", "US");
    let mut client = Client::new(&host, NOON);
    client.say(subscribe("e", "events", &[]));
    client.say(subscribe("r", "revenue", &[]));
    client.say(subscribe("low", "low", &[]));
    client.say(subscribe("high", "high", &["device"]));
    host.change(|definitions| {
        definitions.metrics.iter_mut().filter(|metric| metric.name == "low").for_each(|m| m.name = "lowest".into());
        definitions.metrics.iter_mut().filter(|metric| metric.name == "high").for_each(|m| m.dimensions = vec![]);
        if let MetricKind::Aggregate { window_ms, .. } = &mut definitions.metrics[2].kind {
            *window_ms = 2 * MINUTE_MS;
        }
    });
    host.live.definitions_changed(NOON + SECOND_MS);
    let frames = client.frames();
    assert_eq!(
        frames[0],
        json!({"op": "definitions", "revision": 4, "added": ["orders"], "changed": [], "removed": []})
    );
    let told: Vec<_> = frames[1..]
        .iter()
        .map(|f| (f["id"].as_str().unwrap(), f["op"].as_str().unwrap(), f["code"].as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("r", "snapshot", None),
            ("low", "error", Some("metric_removed")),
            ("high", "error", Some("unknown_dimension"))
        ]
    );
    assert_eq!(frames[1]["revision"], 4);
    // Back again: a new subscription starts afresh.
    host.change(|definitions| {
        definitions.metrics.iter_mut().filter(|m| m.name == "lowest").for_each(|m| m.name = "low".into())
    });
    assert_eq!(client.say(subscribe("low", "low", &[]))[0]["op"], "snapshot");

    let mut active = (**host.active.load()).clone();
    let diagnostic = Diagnostic {
        file: "metrics.toml".into(),
        line: 3,
        column: 5,
        length: 4,
        message: "no such field".into(),
        expected: None,
        help: None,
        rendered: "…".into(),
    };
    active.last = Arc::new(Outcome::Rejected { at: 2, diagnostics: vec![diagnostic] });
    host.active.store(Arc::new(active));
    host.live.definitions_changed(NOON + SECOND_MS);
    let frames = client.frames();
    assert_eq!((frames.len(), &frames[0]["rejected"][0]["line"], &frames[0]["revision"]), (1, &json!(3), &json!(5)));
}

#[test]
fn anomalies_are_told_and_taken_back() {
    let host = Host::new();
    host.change(|definitions| {
        let kind = RuleKind::Threshold { above: Some(2.0), below: None };
        definitions.rules.push(AnomalyRule { name: "events".into(), metric: 0, by: vec![], kind: kind.clone() });
        definitions.rules.push(AnomalyRule {
            name: "high".into(),
            metric: 7,
            by: vec![],
            kind: RuleKind::Threshold { above: None, below: Some(100.0) },
        });
    });
    host.add(NOON, "x", "US");
    host.add(NOON, "purchase", "US");
    let mut client = Client::new(&host, NOON);
    let snapshot = client.say(subscribe("a", "events", &[])).remove(0);
    assert_eq!(snapshot["series"][0]["anomalies"], json!([]));
    assert_eq!(snapshot["series"][0]["band"], json!([[NOON, null, null, 2]]));
    assert_eq!(client.say(subscribe("h", "high", &[]))[0]["series"][0]["anomalies"][0]["value"], 10);
    host.add(NOON, "x", "US");
    host.refresh(NOON + SECOND_MS);
    let frames = client.frames();
    assert_eq!(frames[0]["band"], json!([[0, NOON, null, null, 2]]));
    assert_eq!(
        frames[1],
        json!({"op": "anomaly", "id": "a", "labels": {}, "t": NOON, "value": 3, "expected": null,
        "lower": null, "upper": 2, "score": 1, "rule": "threshold"})
    );
    // A correction takes one back.
    host.world.add([Event { at: NOON, text: ["purchase", "US", "mobile"], amount: Some(200.0), user: 1 }]);
    host.refresh(NOON + 2 * SECOND_MS);
    let frames = client.frames();
    let of = |id: &str| frames.iter().find(|f| f["id"] == id && f["op"] == "anomaly").unwrap();
    assert_eq!((&of("h")["cleared"], &of("h")["value"]), (&json!(true), &json!(200)));
    assert_eq!((&of("a")["cleared"], &of("a")["value"]), (&Value::Null, &json!(4)), "grown further, said again");
}

#[test]
fn clients_are_told_when_the_numbers_get_old_and_when_they_no_longer_are() {
    let host = Host::new();
    host.add(NOON, "x", "US");
    let mut client = Client::new(&host, NOON);
    client.say(subscribe("e", "events", &[]));
    host.live.set_stale(None, NOON);
    assert_eq!(client.frames(), Vec::<Value>::new(), "they are not");
    host.live.set_stale(Some("Redis does not answer".into()), NOON + SECOND_MS);
    host.live.set_stale(Some("Redis still does not".into()), NOON + 2 * SECOND_MS);
    let told = json!({"op": "stale", "since": NOON + SECOND_MS, "reason": "Redis does not answer"});
    let mut later = Client::new(&host, NOON);
    let told = vec![told];
    assert_eq!((client.frames(), later.frames()), (told.clone(), told), "once, and who comes later too");
    host.live.set_stale(None, NOON + 3 * SECOND_MS);
    let over = json!({"op": "stale", "since": null});
    assert_eq!((client.frames(), later.frames()), (vec![over.clone()], vec![over]));
    assert_eq!(Client::new(&host, NOON).frames(), Vec::<Value>::new());
}
