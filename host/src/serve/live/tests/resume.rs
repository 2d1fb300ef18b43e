//! Clients that lose their connection, or their host, and come back with what they hold.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

impl Host {
    /// As after a start: nothing is known but what is stored, and change numbers go on far behind those that were told.
    /// `lost`: so many of the last changes were never durable.
    fn restart(&mut self, lost: usize) {
        {
            let mut events = self.world.events.lock().unwrap();
            let mut seqs: Vec<_> = events.iter().map(|(seq, _)| *seq).collect();
            seqs.dedup();
            let kept = seqs.len().saturating_sub(lost);
            let floor = seqs.last().copied().unwrap_or(0) + 1_000;
            events.retain(|(seq, _)| seqs[..kept].contains(seq));
            let mut known = self.world.floor.lock().unwrap();
            *known = floor.max(*known + 1_000);
        }
        let evaluator = Arc::new(Evaluator::new(self.world.clone()));
        self.live = Live::new(evaluator, self.active.clone(), Arc::default(), false);
    }

    /// Another one over the same store, that was never asked anything.
    fn other(&self, shared_seq: bool) -> Self {
        let evaluator = Arc::new(Evaluator::new(self.world.clone()));
        let live = Live::new(evaluator, self.active.clone(), Arc::default(), shared_seq);
        Self { world: self.world.clone(), active: self.active.clone(), live }
    }
}

/// A page: what it asks for, what it holds, and its connection while it has one.
struct Page {
    asked: Value,
    held: Held,
    client: Option<Client>,
}

/// Labels and time.
type At = (String, i64);

#[derive(Default)]
struct Held {
    mirror: Mirror,
    epoch: Value,
    provisional_from: Value,
    /// By labels and time.
    anomalies: BTreeMap<At, Value>,
    snapshots: usize,
}

impl Held {
    fn take(&mut self, frames: Vec<Value>) {
        for frame in frames {
            if frame["op"] == "anomaly" {
                let at = (frame["labels"].to_string(), frame["t"].as_i64().unwrap());
                match frame["cleared"].as_bool() {
                    Some(true) => drop(self.anomalies.remove(&at)),
                    _ => drop(self.anomalies.insert(at, frame["value"].clone())),
                }
                continue;
            }
            if frame["op"] == "snapshot" {
                *self = Self { epoch: frame["epoch"].clone(), snapshots: self.snapshots + 1, ..Self::default() };
                for series in frame["series"].as_array().unwrap() {
                    for anomaly in series["anomalies"].as_array().unwrap() {
                        let at = (series["labels"].to_string(), anomaly["t"].as_i64().unwrap());
                        self.anomalies.insert(at, anomaly["value"].clone());
                    }
                }
            }
            self.mirror.apply(&frame);
            self.provisional_from = frame["provisional_from"].clone();
        }
    }

    /// What is not as a new client is told. Points before `from` have left the range.
    fn differs_from(&self, new: &Self, from: i64) -> Vec<String> {
        let mut differences = Vec::new();
        // A point without a value, and none: a delta takes a point back by saying that it has no value.
        let values = |held: &Self| {
            let inside =
                held.mirror.points.clone().into_iter().filter(|((_, t), value)| *t >= from && !value.is_null());
            inside.collect::<BTreeMap<At, Value>>()
        };
        let (held, told) = (values(self), values(new));
        for at in held.keys().chain(told.keys()).filter(|at| held.get(*at) != told.get(*at)) {
            differences.push(format!("{at:?} is {:?}, not {:?}", held.get(at), told.get(at)));
        }
        let inside =
            |held: &Self| held.anomalies.clone().into_iter().filter(|((_, t), _)| *t >= from).collect::<Vec<_>>();
        if inside(self) != inside(new) {
            differences.push(format!("anomalies {:?}, not {:?}", inside(self), inside(new)));
        }
        // That time has passed where there is no point is not worth a frame.
        let until = |held: &Self| held.provisional_from.as_i64().unwrap_or(i64::MAX);
        let open = until(self)..until(new);
        if open.start > open.end || self.mirror.points.keys().any(|at| open.contains(&at.1)) {
            differences.push(format!("provisional from {}, not {}", self.provisional_from, new.provisional_from));
        }
        differences
    }
}

impl Page {
    fn new(metric: &str, by: &[&str]) -> Self {
        Self { asked: subscribe("a", metric, by), held: Held::default(), client: None }
    }

    /// Opens a connection and says where it was; with what the snapshot said of itself, or without.
    fn come_back(&mut self, host: &Host, now: Millis, with_epoch: bool) {
        let mut client = Client::new(host, now);
        let mut asked = self.asked.clone();
        if !self.held.mirror.seq.is_null() {
            asked["op"] = json!("resume");
            asked["seq"] = self.held.mirror.seq.clone();
            if with_epoch {
                asked["epoch"] = self.held.epoch.clone();
            }
        }
        self.held.take(client.say(asked));
        self.client = Some(client);
    }
}

#[test]
fn what_a_client_holds_after_resume_is_what_a_new_one_is_told() {
    let (mut by_delta, mut by_snapshot) = (0, 0);
    for seed in 0..8 {
        let (deltas, snapshots) = lives_of_pages(seed);
        by_delta += deltas;
        by_snapshot += snapshots;
    }
    assert!(by_delta > 100 && by_snapshot > 50, "both ways were taken: {by_delta}, {by_snapshot}");
}

/// How many came back to a delta, and how many to a snapshot.
fn lives_of_pages(seed: u64) -> (usize, usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut host = Host::new();
    host.change(|definitions| {
        let kind = RuleKind::Threshold { above: Some(1.0), below: None };
        definitions.rules.push(AnomalyRule { name: "events".into(), metric: 0, by: vec!["country".into()], kind });
    });
    let asked =
        [("events", vec!["country"]), ("mean", vec!["country", "device"]), ("users", vec![]), ("nested", vec![])];
    let mut pages: Vec<Page> = asked.iter().chain(&asked).map(|(metric, by)| Page::new(metric, by)).collect();
    let (mut by_delta, mut by_snapshot) = (0, 0);
    let mut now = NOON + random.random_range(0..60) * SECOND_MS;
    for round in 0..80 {
        now += random.random_range(1..50) * SECOND_MS;
        something_happens(&mut random, &mut host, &mut pages, now);
        host.refresh(now);
        for page in &mut pages {
            if let Some(client) = &mut page.client {
                page.held.take(client.frames());
            } else if random.random_bool(0.5) {
                let before = page.held.snapshots;
                let again = !page.held.mirror.seq.is_null();
                page.come_back(&host, now, random.random_bool(0.5));
                let told_whole = page.held.snapshots > before;
                by_delta += usize::from(again && !told_whole);
                by_snapshot += usize::from(again && told_whole);
            }
        }
        let fresh = host.other(false);
        for page in pages.iter().filter(|page| page.client.is_some()) {
            let mut new = Page { asked: page.asked.clone(), held: Held::default(), client: None };
            new.come_back(&fresh, now, false);
            let from = now - now.rem_euclid(MINUTE_MS) - 59 * MINUTE_MS;
            let differences = page.held.differs_from(&new.held, from);
            assert_eq!(differences, Vec::<String>::new(), "seed {seed}, round {round}, {}", page.asked);
        }
    }
    (by_delta, by_snapshot)
}

fn something_happens(random: &mut StdRng, host: &mut Host, pages: &mut [Page], now: Millis) {
    for _ in 0..random.random_range(0..5) {
        let back = if random.random_bool(0.3) { random.random_range(0..55) * MINUTE_MS } else { 0 };
        let country = ["US", "DE", "FR", "BR", "JP"][random.random_range(0..5)];
        host.add(now - back, ["x", "error"][random.random_range(0..2)], country);
    }
    let lost = match random.random_range(0..40) {
        0 => Some(0),
        1 => Some(3),
        _ => None,
    };
    if let Some(lost) = lost {
        pages.iter_mut().for_each(|page| page.client = None);
        host.restart(lost);
    }
    for page in pages {
        if random.random_bool(0.2) {
            page.client = None;
        }
    }
}

#[test]
fn many_that_come_back_are_told_the_same_bytes() {
    let host = Host::new();
    host.add(NOON, "x", "US");
    let mut pages: Vec<Page> = (0..50).map(|_| Page::new("events", &["country"])).collect();
    pages.iter_mut().for_each(|page| page.come_back(&host, NOON, false));
    pages.iter_mut().for_each(|page| page.client = None);
    host.add(NOON, "x", "DE");
    host.refresh(NOON + SECOND_MS);
    let reads = host.world.reads.lock().unwrap().len();
    let mut bodies = Vec::new();
    for page in &pages {
        let mut client = Client::new(&host, NOON + SECOND_MS);
        let asked = json!({"op": "resume", "id": "b", "metric": "events", "range": "1h", "by": ["country"], "seq": page.held.mirror.seq});
        if let Some(topic) = client.session.receive(&asked.to_string()) {
            host.live.refresh_topic(&topic, NOON + SECOND_MS);
        }
        let Some(Due::Send(frame)) = std::iter::from_fn(|| client.session.due()).find(|due| match due {
            Due::Encode(topic, wanted) => !topic.encode(*wanted),
            Due::Send(_) => true,
        }) else {
            panic!("something is due")
        };
        assert!(frame.head.starts_with(b"{\"op\":\"delta\",\"id\":\"b\""), "{frame:?}");
        bodies.push(frame.body);
    }
    assert!(bodies.iter().all(|body| body.as_ptr() == bodies[0].as_ptr()), "encoded once");
    assert_eq!(host.world.reads.lock().unwrap().len(), reads + 1, "and computed once");
    assert_eq!(host.live.telemetry.serve.live_resumes.get(), 50);
}

#[test]
fn nothing_missed_is_said_too() {
    let host = Host::new();
    host.add(NOON, "x", "US");
    let mut page = Page::new("events", &[]);
    page.come_back(&host, NOON, false);
    let mut client = Client::new(&host, NOON);
    let asked = json!({"op": "resume", "id": "a", "metric": "events", "range": "1h", "seq": page.held.mirror.seq});
    let said = client.say(asked.clone());
    let seq = &page.held.mirror.seq;
    let nothing = json!({"op": "delta", "id": "a", "prev": seq, "seq": seq, "points": [], "new_series": [], "provisional_from": page.held.provisional_from});
    assert_eq!(said, [nothing]);
    // It goes on from there.
    host.add(NOON, "x", "US");
    host.refresh(NOON + SECOND_MS);
    assert_eq!((&client.frames()[0]["prev"], client.frames().len()), (seq, 0));
    // What was never told, or would be told in the future, is no place to go on from.
    for never in [json!(0), json!(77)] {
        let mut asked = asked.clone();
        asked["seq"] = never;
        assert_eq!(client.say(asked)[0]["op"], "snapshot");
    }
}

#[test]
fn change_numbers_of_other_hosts_are_not_taken_for_ones_own() {
    let host = Host::new();
    host.add(NOON, "x", "US");
    let (one, two) = (host.other(true), host.other(true));
    let ask = |at: &Host, frame: &Value, with_epoch: bool| {
        let mut asked = json!({"op": "resume", "id": "a", "metric": "events", "range": "1h", "seq": frame["seq"]});
        if with_epoch {
            asked["epoch"] = frame["epoch"].clone();
        }
        Client::new(at, NOON).say(asked)[0]["op"].as_str().unwrap().to_owned()
    };
    let told = Client::new(&one, NOON).say(subscribe("a", "events", &[])).remove(0);
    Client::new(&two, NOON).say(subscribe("a", "events", &[]));
    assert_eq!(ask(&one, &told, true), "delta", "it was told here");
    assert_eq!(ask(&one, &told, false), "snapshot", "it may have been told elsewhere");
    assert_eq!([ask(&two, &told, true), ask(&two, &told, false)], ["snapshot", "snapshot"]);
}
