//! Against a real broker: consumers that share a group and a store, deltas that are refused, ids before what is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError as Failure;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::Offset;
use tidemark_services::{Kind, Service};

use super::consumer::{Consumer, Running};
use super::group::{Event, Group};
use super::producer::Producer;
use super::reread::{Piece, Reread};
use super::{Counting, Given, KafkaSettings, Plans, Stored, topic};
use crate::engine::delta::SourceId;
use crate::engine::plan::{EventPlan, Plan};
use crate::telemetry::Telemetry;
use crate::time::{Clock, Millis};

const DEADLINE: Duration = Duration::from_secs(60);

fn broker() -> String {
    static BROKER: OnceLock<Service> = OnceLock::new();
    BROKER.get_or_init(|| Service::start(Kind::Kafka).unwrap()).address()
}

fn settings(topic: &str) -> KafkaSettings {
    static HOSTS: AtomicU64 = AtomicU64::new(0);
    KafkaSettings {
        brokers: broker(),
        topic: topic.into(),
        group: topic.into(),
        options: vec![],
        instance: format!("test-{}", HOSTS.fetch_add(1, Relaxed)),
        alone: false,
    }
}

/// Where hosts of a group keep what they counted: every offset with its line, as often as it was counted.
#[derive(Default)]
struct Store {
    positions: BTreeMap<SourceId, Stored>,
    counted: BTreeMap<SourceId, Vec<(u64, String)>>,
}

/// One host: counts what it is given when it is told to, and is refused where the store is elsewhere.
#[derive(Default)]
struct Host {
    store: Arc<Mutex<Store>>,
    dedupe_ms: Option<Millis>,
    given: Mutex<Vec<Given>>,
    /// Partition, first and last offset of what was only remembered, and how much was counted by then.
    remembered: Mutex<Vec<(SourceId, u64, u64)>>,
    taken: Mutex<Vec<SourceId>>,
    generation: AtomicU64,
    refused: AtomicU64,
    /// Messages that it stored.
    stored: AtomicU64,
    /// Does not store what it was given when it lets partitions go.
    careless: AtomicBool,
}

impl Host {
    /// All or nothing, as a delta is.
    fn apply(&self) -> bool {
        let mut store = self.store.lock().unwrap();
        let given = std::mem::take(&mut *self.given.lock().unwrap());
        let mut next: BTreeMap<SourceId, u64> = BTreeMap::new();
        for batch in &given {
            let stored = store.positions.get(&batch.partition).map_or(0, |stored| stored.next);
            if *next.get(&batch.partition).unwrap_or(&stored) != batch.from {
                self.generation.fetch_add(1, Relaxed);
                self.refused.fetch_add(1, Relaxed);
                return false;
            }
            next.insert(batch.partition, batch.to);
        }
        for Given { partition, to, batch, .. } in given {
            let messages = batch.messages.unwrap();
            self.stored.fetch_add(messages.len() as u64, Relaxed);
            let mut start = 0;
            for message in (0..messages.len() as u32).map(|at| *messages.get(at)) {
                let line = String::from_utf8_lossy(&batch.bytes[start..message.end as usize]).trim().to_owned();
                store.counted.entry(partition).or_default().push((message.position, line));
                start = message.end as usize;
            }
            store.positions.insert(partition, Stored { next: to, arrival: batch.arrival });
        }
        true
    }
}

impl Counting for Host {
    fn positions(&self) -> Result<Vec<(SourceId, Stored)>, String> {
        Ok(self.store.lock().unwrap().positions.iter().map(|(source, stored)| (*source, *stored)).collect())
    }

    fn take_over(&self, partitions: &[SourceId]) -> Result<(), String> {
        self.taken.lock().unwrap().extend(partitions);
        Ok(())
    }

    fn dedupe_ms(&self) -> Option<Millis> {
        self.dedupe_ms
    }

    fn give(&self, given: Given) {
        if given.ids_only {
            assert!(self.given.lock().unwrap().is_empty(), "ids are remembered before anything is counted");
            self.remembered.lock().unwrap().push((given.partition, given.from, given.to));
        } else if given.generation == self.generation() {
            self.given.lock().unwrap().push(given);
        }
    }

    fn waiting_bytes(&self) -> usize {
        0
    }

    fn drain(&self) {}

    fn settle(&self) -> Result<(), String> {
        if self.careless.load(Relaxed) || !self.apply() { Err("not stored".into()) } else { Ok(()) }
    }

    fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    fn forget(&self) {
        self.given.lock().unwrap().clear();
        self.generation.fetch_add(1, Relaxed);
    }

    fn put_aside(&self, _: SourceId, _: u64, _: &[u8], _: &'static str, _: Millis) {}
}

fn plan() -> Arc<Plan> {
    let event =
        EventPlan { time: None, key: None, id: None, require: vec![], dedupe_ms: 0, lateness_ms: 0, ahead_ms: 0 };
    let none = || (vec![], vec![], vec![], vec![], vec![], vec![]);
    let (fields, enrichments, filters, dimensions, groups, metrics) = none();
    Arc::new(Plan { event, fields, enrichments, filters, dimensions, groups, metrics })
}

fn start(settings: &KafkaSettings, host: &Arc<Host>) -> Running {
    let telemetry = Arc::new(Telemetry::default());
    let plans: Plans = Arc::new(plan);
    let producer =
        Producer::connect(settings, false, plans, Arc::new(|_, _| ()), 1 << 16, 1 << 20, telemetry.clone()).unwrap();
    let (settings, floors) = (settings.clone(), Arc::default());
    Consumer::start(settings, host.clone(), Arc::new(producer), floors, 1 << 20, Clock::System, telemetry).unwrap()
}

/// Numbered messages over all partitions.
fn write(settings: &KafkaSettings, numbers: std::ops::Range<u32>) {
    let producer: BaseProducer = settings.client(&[]).create().unwrap();
    for number in numbers {
        let (key, value) = (number.to_string(), format!("{{\"n\":{number}}}"));
        let record = BaseRecord::to(&settings.topic).key(&key).payload(&value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(DEADLINE).unwrap();
}

/// Hosts apply what they have until the store holds so many messages.
fn until_counted(store: &Mutex<Store>, hosts: &[&Arc<Host>], wanted: usize) {
    until(|| {
        for host in hosts {
            host.apply();
        }
        let counted: usize = store.lock().unwrap().counted.values().map(Vec::len).sum();
        assert!(counted <= wanted, "{counted} messages are counted, there are {wanted}");
        counted == wanted
    });
}

fn until(mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < DEADLINE, "waited too long");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A group may settle twice, and then a host takes a partition twice.
fn distinct(taken: &Mutex<Vec<SourceId>>) -> usize {
    taken.lock().unwrap().iter().collect::<BTreeSet<_>>().len()
}

/// Every message exactly once, each partition in its order.
fn check(store: &Mutex<Store>, wanted: u32) {
    let store = store.lock().unwrap();
    let mut lines: Vec<&str> = Vec::new();
    for counted in store.counted.values() {
        assert!(counted.is_sorted_by(|(a, _), (b, _)| a < b), "in their order, each once: {counted:?}");
        lines.extend(counted.iter().map(|(_, line)| line.as_str()));
    }
    lines.sort_unstable();
    let mut all: Vec<String> = (0..wanted).map(|number| format!("{{\"n\":{number}}}")).collect();
    all.sort_unstable();
    assert_eq!(lines, all);
}

#[test]
fn hosts_of_a_group_share_its_partitions() {
    let settings = [settings("shared"), settings("shared")].map(|it| KafkaSettings { group: "shared".into(), ..it });
    topic::prepare(&settings[0]).unwrap();
    let store: Arc<Mutex<Store>> = Arc::default();
    let host = || Arc::new(Host { store: store.clone(), ..Host::default() });
    let (first, second) = (host(), host());
    write(&settings[0], 0..3_000);
    let running = start(&settings[0], &first);
    until_counted(&store, &[&first], 3_000);
    assert_eq!(distinct(&first.taken), 12);
    // Another one comes: half of the partitions move, with all that was read of them stored.
    let also_running = start(&settings[1], &second);
    let mut written = 3_000;
    until(|| {
        write(&settings[0], written..written + 100);
        written += 100;
        until_counted(&store, &[&first, &second], written as usize);
        second.stored.load(Relaxed) > 0
    });
    // It is gone in good order: the other takes over.
    write(&settings[0], written..written + 500);
    running.stop();
    write(&settings[0], written + 500..written + 1_000);
    until_counted(&store, &[&second], written as usize + 1_000);
    check(&store, written + 1_000);
    assert_eq!(distinct(&second.taken), 12);
    assert_eq!((first.refused.load(Relaxed), second.refused.load(Relaxed)), (0, 0));
    also_running.stop();
}

/// The client waits for an answer to every assignment before it ends, to an empty one as well.
#[test]
fn who_was_asked_and_did_not_come_to_answer_can_leave() {
    let settings = [settings("one"), settings("one")];
    let admin: AdminClient<DefaultClientContext> = settings[0].client(&[]).create().unwrap();
    let topics = [NewTopic::new("one", 1, TopicReplication::Fixed(1))];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(admin.create_topics(&topics, &AdminOptions::new())).unwrap();
    let host = Arc::new(Host::default());
    let running = start(&settings[0], &host);
    until(|| distinct(&host.taken) == 1);
    let ours = [("group.id", "one"), ("partition.assignment.strategy", "cooperative-sticky")];
    let late: BaseConsumer<Group> = settings[1].client(&ours).create_with_context(Group::new("one")).unwrap();
    late.subscribe(&["one"]).unwrap();
    until(|| {
        late.poll(Duration::from_millis(100));
        late.context().take().iter().any(|event| matches!(event, Event::Assigned(partitions) if partitions.is_empty()))
    });
    let leaving = std::thread::spawn(move || late.context().leave(&late));
    until(|| leaving.is_finished());
    running.stop();
}

#[test]
fn what_a_host_holds_back_is_refused_later() {
    let settings = [settings("zombie"), settings("zombie")].map(|it| KafkaSettings { group: "zombie".into(), ..it });
    topic::prepare(&settings[0]).unwrap();
    let store: Arc<Mutex<Store>> = Arc::default();
    let host = || Arc::new(Host { store: store.clone(), ..Host::default() });
    let (zombie, other) = (host(), host());
    zombie.careless.store(true, Relaxed);
    let running = start(&settings[0], &zombie);
    write(&settings[0], 0..2_000);
    // It reads all of it, and stores nothing before the other has taken half of the partitions and counted them.
    until(|| zombie.given.lock().unwrap().iter().map(|it| it.to - it.from).sum::<u64>() == 2_000);
    let also_running = start(&settings[1], &other);
    until(|| {
        other.apply();
        !store.lock().unwrap().counted.is_empty()
    });
    assert!(!zombie.apply(), "dropped whole");
    // What it still owns it reads again from what is stored.
    write(&settings[0], 2_000..3_000);
    until_counted(&store, &[&zombie, &other], 3_000);
    check(&store, 3_000);
    zombie.careless.store(false, Relaxed);
    running.stop();
    also_running.stop();
}

#[test]
fn a_refused_delta_is_read_again_ids_first() {
    let settings = settings("again");
    topic::prepare(&settings).unwrap();
    let store: Arc<Mutex<Store>> = Arc::default();
    let host = Arc::new(Host { store: store.clone(), dedupe_ms: Some(600_000), ..Host::default() });
    let running = start(&settings, &host);
    write(&settings, 0..2_000);
    until_counted(&store, &[&host], 2_000);
    assert!(host.remembered.lock().unwrap().is_empty(), "nothing was counted before");
    let before = store.lock().unwrap().positions.clone();
    write(&settings, 2_000..2_500);
    until(|| host.given.lock().unwrap().iter().map(|it| it.to - it.from).sum::<u64>() == 500);
    // Void: as after a refusal.
    host.forget();
    until_counted(&store, &[&host], 2_500);
    check(&store, 2_500);
    let mut remembered: BTreeMap<SourceId, u64> = BTreeMap::new();
    for (partition, from, to) in &*host.remembered.lock().unwrap() {
        assert_eq!(*remembered.get(partition).unwrap_or(&0), *from, "without a gap");
        remembered.insert(*partition, *to);
    }
    let all: BTreeMap<SourceId, u64> = before.iter().map(|(partition, stored)| (*partition, stored.next)).collect();
    assert_eq!(remembered, all, "all that was counted within the span, and nothing else");
    // The next start does the same.
    running.stop();
    host.remembered.lock().unwrap().clear();
    let running = start(&settings, &host);
    write(&settings, 2_500..2_600);
    until_counted(&store, &[&host], 2_600);
    check(&store, 2_600);
    let remembered: u64 = host.remembered.lock().unwrap().iter().map(|(_, from, to)| to - from).sum();
    assert_eq!(remembered, 2_500);
    running.stop();
}

#[test]
fn an_end_that_was_met_before_is_not_the_end_now() {
    let settings = settings("ends");
    topic::prepare(&settings).unwrap();
    let producer: BaseProducer = settings.client(&[]).create().unwrap();
    let watching = [("group.id", "watcher"), ("enable.partition.eof", "true")];
    let watcher: BaseConsumer = settings.client(&watching).create().unwrap();
    let mut reread = Reread::connect(&settings, Clock::System).unwrap();
    for number in 0..3 {
        let record = BaseRecord::<(), str>::to("ends").payload("{}").partition(3);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(DEADLINE).unwrap();
        let piece = reread.read(3, number, number + 1, usize::MAX).unwrap();
        assert_eq!((piece.batch.len, piece.to), (3, number + 1), "message {number}");
        // It reads ahead: the end that another meets who begins only now it has met, too.
        let mut here = TopicPartitionList::new();
        here.add_partition_offset("ends", 3, Offset::Offset(number as i64 + 1)).unwrap();
        watcher.assign(&here).unwrap();
        let met = watcher.poll(DEADLINE);
        assert!(matches!(met, Some(Err(Failure::PartitionEOF(3)))), "{met:?}");
    }
}

#[test]
fn what_was_read_is_read_once_more_in_pieces() {
    let settings = settings("reread");
    topic::prepare(&settings).unwrap();
    let producer: BaseProducer =
        settings.client(&[("transactional.id", "reread")]).set("linger.ms", "5").create().unwrap();
    producer.init_transactions(DEADLINE).unwrap();
    let put = |value: &str, at: i64| {
        let record = BaseRecord::<(), str>::to("reread").payload(value).partition(3).timestamp(at);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    };
    producer.begin_transaction().unwrap();
    (0..100).for_each(|number| put(&format!("{{\"n\":{number}}}"), 1_000_000 + number));
    put("", 0);
    // This producer serves its queue only when it is told to.
    producer.flush(DEADLINE).unwrap();
    producer.commit_transaction(DEADLINE).unwrap();
    producer.begin_transaction().unwrap();
    put("{\"n\":-1}", 0);
    producer.flush(DEADLINE).unwrap();
    producer.abort_transaction(DEADLINE).unwrap();
    // Messages at 0..100, one that is empty, the end of the transaction, one that was taken back, and that end.
    let end = 104;
    let mut reread = Reread::connect(&settings, Clock::System).unwrap();
    let offsets = |piece: &Piece| {
        let messages = piece.batch.messages.as_ref().unwrap();
        (0..messages.len() as u32).map(|at| messages.get(at).position).collect::<Vec<_>>()
    };
    assert_eq!(reread.first(3).unwrap(), 0);
    for (from, to, bytes_max, wanted, ends) in [
        (0, end, usize::MAX, 0..100, end),
        (0, 7, usize::MAX, 0..7, 7),
        (7, 20, usize::MAX, 7..20, 20),
        (0, end, 70, 0..9, 9),
        // Goes on where it stands.
        (9, end, 70, 9..17, 17),
        (99, 101, usize::MAX, 99..100, 101),
        (100, end, usize::MAX, 0..0, end),
        (102, 103, usize::MAX, 0..0, 103),
    ] {
        let piece = reread.read(3, from, to, bytes_max).unwrap();
        let (wanted, found): (Vec<u64>, _) = (wanted.collect(), offsets(&piece));
        assert_eq!((found, piece.to, piece.lost), (wanted, ends, 0), "{from}..{to} within {bytes_max}");
    }
    assert!(reread.read(3, 0, end + 1, 1).is_err(), "so far it never reached");
    assert!(reread.is_same(3, 42, 1_000_042).unwrap());
    assert!(!reread.is_same(3, 42, 1_000_043).unwrap(), "another topic");
    assert!(!reread.is_same(3, end, 0).unwrap(), "beyond its end");
    // Retention.
    let admin: AdminClient<DefaultClientContext> = settings.client(&[]).create().unwrap();
    let mut before = TopicPartitionList::new();
    before.add_partition_offset("reread", 3, Offset::Offset(50)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(admin.delete_records(&before, &AdminOptions::new())).unwrap();
    let piece = reread.read(3, 10, 60, usize::MAX).unwrap();
    assert_eq!((offsets(&piece), piece.to, piece.lost), ((50..60).collect(), 60, 40));
    let piece = reread.read(3, 10, 20, usize::MAX).unwrap();
    assert_eq!((offsets(&piece), piece.to, piece.lost), (vec![], 20, 10));
    assert!(reread.is_same(3, 5, 0).unwrap(), "nobody can say");
}
