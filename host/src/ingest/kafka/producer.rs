//! The producer: what HTTP took is looked at, produced one message a key, and acknowledged when every message of the batch is
//! durable. Letters of what cannot be counted go the same way.
//!
//! Does not count: whoever consumes the topic does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError as Failure, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use super::message::{ADDRESS_HEADER, REASON_HEADER, SOURCE_HEADER, USER_AGENT_HEADER};
use super::{DELIVERY_TIMEOUT_MS, KafkaError, KafkaSettings, MESSAGE_BYTES_MAX, Plans};
use crate::engine::delta::SourceId;
use crate::engine::judge::Arrival;
use crate::engine::report::Report;
use crate::engine::screen::Screen;
use crate::engine::shard::Input;
use crate::ingest::{ERRORS_LISTED_MAX, Intake, RawBatch, Receipt, Refusal};
use crate::telemetry::Telemetry;
use crate::time::Millis;

/// Smaller batches are looked at where they are, larger ones on a thread of their own.
const INLINE_BYTES_MAX: usize = 32 << 10;
const RETRY_AFTER_S: u32 = 1;
/// What a message costs in the queue beyond its bytes.
const MESSAGE_OVERHEAD_BYTES: usize = 256;
/// Screens kept for the next batches.
const SCREENS_MAX: usize = 16;
const CLOSE_WITHIN: Duration = Duration::from_secs(20);

/// Told of what was rejected before it was produced.
pub type Rejected = Arc<dyn Fn(&RawBatch, &Report) + Send + Sync>;

pub struct Producer {
    inner: ThreadedProducer<Deliveries>,
    topic: String,
    /// `None`: there is no topic for letters.
    dead_topic: Option<String>,
    plans: Plans,
    rejected: Rejected,
    event_bytes_max: usize,
    queue_bytes_max: usize,
    waiting_bytes: Arc<AtomicUsize>,
    letters: Arc<Letters>,
    screens: Mutex<Vec<Screen>>,
    closed: AtomicBool,
    telemetry: Arc<Telemetry>,
}

/// Letters on their way.
#[derive(Default)]
pub struct Letters {
    waiting_bytes: AtomicUsize,
    sent: AtomicU64,
    /// Kept, or given up. In the order in which they were sent: their topic has one partition.
    done: AtomicU64,
}

impl Letters {
    fn begin(&self, bytes: usize) {
        self.waiting_bytes.fetch_add(bytes, Relaxed);
        self.sent.fetch_add(1, AcqRel);
    }

    fn end(&self, bytes: usize) {
        self.waiting_bytes.fetch_sub(bytes, Relaxed);
        self.done.fetch_add(1, AcqRel);
    }
}

/// What waits for a delivery.
pub enum Ticket {
    Batch(Batch),
    Letter { letters: Arc<Letters>, bytes: usize },
}

/// Messages of a batch that are not delivered, and who waits for them.
pub struct Batch {
    left: AtomicUsize,
    failure: Mutex<Option<String>>,
    done: Mutex<Option<oneshot::Sender<Result<(), String>>>>,
    bytes: usize,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Batch {
    fn fail(&self, reason: String) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
    }

    /// One message less to wait for.
    fn one_done(&self) {
        if self.left.fetch_sub(1, AcqRel) > 1 {
            return;
        }
        self.waiting_bytes.fetch_sub(self.bytes, Relaxed);
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(done) = self.done.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Whoever waited may have gone.
            let _ = done.send(failure.map_or(Ok(()), Err));
        }
    }
}

/// Hears of deliveries.
pub struct Deliveries {
    problem: Arc<Mutex<Option<String>>>,
    telemetry: Arc<Telemetry>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log(level, facility, message);
    }

    fn error(&self, error: Failure, reason: &str) {
        tracing::debug!(target: "tidemark::kafka", %error, "{reason}");
        if matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::Fatal)) {
            *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("Kafka: {reason}"));
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Arc<Ticket>) {
        let failure = result.as_ref().err().map(|(error, _)| error.to_string());
        match &*ticket {
            Ticket::Batch(batch) => {
                let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
                match failure {
                    Some(reason) => {
                        self.telemetry.kafka.delivery_failures.inc();
                        *problem = Some(format!("Kafka does not take events: {reason}"));
                        batch.fail(reason);
                    }
                    None if problem.is_some() => *problem = None,
                    None => {}
                }
                drop(problem);
                batch.one_done();
            }
            Ticket::Letter { letters, bytes } => {
                letters.end(*bytes);
                if let Some(reason) = failure {
                    self.telemetry.kafka.dead_letters_lost.inc();
                    tracing::warn!(reason, "a dead letter could not be kept");
                }
            }
        }
    }
}

/// Lines of one key, and the key.
struct Group {
    key: Option<Vec<u8>>,
    lines: Vec<u8>,
}

/// Lines by key, in their order; a message that gets too long is followed by another of its key.
#[derive(Default)]
struct Groups {
    list: Vec<Group>,
    newest: HashMap<Option<Vec<u8>>, usize>,
}

impl Groups {
    fn add(&mut self, line: &[u8], key: Option<&[u8]>) {
        let key = key.map(<[u8]>::to_vec);
        let known = self.newest.get(&key).copied();
        let fits = |at: &usize| self.list[*at].lines.len() + line.len() < MESSAGE_BYTES_MAX;
        let at = known.filter(fits).unwrap_or_else(|| {
            self.list.push(Group { key: key.clone(), lines: Vec::new() });
            self.newest.insert(key, self.list.len() - 1);
            self.list.len() - 1
        });
        let lines = &mut self.list[at].lines;
        if !lines.is_empty() {
            lines.push(b'\n');
        }
        lines.extend_from_slice(line);
    }
}

impl Producer {
    pub fn connect(
        settings: &KafkaSettings,
        dead_topic: bool,
        plans: Plans,
        rejected: Rejected,
        event_bytes_max: usize,
        queue_bytes_max: usize,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, KafkaError> {
        let timeout = DELIVERY_TIMEOUT_MS.to_string();
        let config = settings.client(&[
            ("enable.idempotence", "true"),
            ("compression.codec", "lz4"),
            ("linger.ms", "5"),
            ("partitioner", "murmur2_random"),
            ("message.timeout.ms", &timeout),
            ("batch.size", "1000000"),
            // What waits is bounded by its bytes, here.
            ("queue.buffering.max.messages", "0"),
            ("queue.buffering.max.kbytes", "2097151"),
        ]);
        let context = Deliveries { problem: Arc::default(), telemetry: telemetry.clone() };
        let inner: ThreadedProducer<Deliveries> =
            config.create_with_context(context).map_err(|error| KafkaError::Setting(error.to_string()))?;
        Ok(Self {
            inner,
            topic: settings.topic.clone(),
            dead_topic: dead_topic.then(|| settings.dead_topic()),
            plans,
            rejected,
            event_bytes_max,
            queue_bytes_max,
            waiting_bytes: Arc::default(),
            letters: Arc::default(),
            screens: Mutex::default(),
            closed: AtomicBool::new(false),
            telemetry,
        })
    }

    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes.load(Relaxed)
    }

    /// Why nothing can be made durable right now.
    pub fn problem(&self) -> Option<String> {
        self.inner.client().context().problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes of letters that are not durable yet.
    pub fn letter_bytes(&self) -> usize {
        self.letters.waiting_bytes.load(Relaxed)
    }

    /// Waits until the letters given so far are durable, or given up. False: not all within the time.
    pub fn letters_kept(&self, within: Duration) -> bool {
        let (sent, started) = (self.letters.sent.load(Acquire), Instant::now());
        while self.letters.done.load(Acquire) < sent {
            if started.elapsed() > within {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        true
    }

    /// Takes nothing more; waits for what is under way.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
        if let Err(error) = self.inner.flush(CLOSE_WITHIN) {
            tracing::warn!(%error, "not all that was under way was delivered; nobody was told that it was");
        }
    }

    /// Keeps what cannot be counted where somebody may look at it.
    pub fn letter(
        &self,
        value: &[u8],
        key: Option<&[u8]>,
        reason: &str,
        partition: SourceId,
        offset: u64,
        arrival: Millis,
    ) {
        self.telemetry.kafka.dead_letters.inc();
        let Some(topic) = &self.dead_topic else { return };
        let source = format!("{}/{partition}/{offset}", self.topic);
        let header = |key, text: &str| OwnedHeaders::new_with_capacity(2).insert(Header { key, value: Some(text) });
        let headers = header(REASON_HEADER, reason).insert(Header { key: SOURCE_HEADER, value: Some(&source) });
        let bytes = value.len() + MESSAGE_OVERHEAD_BYTES;
        let ticket = Arc::new(Ticket::Letter { letters: self.letters.clone(), bytes });
        self.letters.begin(bytes);
        let mut record: BaseRecord<'_, [u8], [u8], _> = BaseRecord::with_opaque_to(topic, ticket);
        record.key = key;
        if let Err((error, _)) = self.inner.send(record.payload(value).headers(headers).timestamp(arrival)) {
            self.letters.end(bytes);
            self.telemetry.kafka.dead_letters_lost.inc();
            tracing::warn!(%error, source, "a dead letter could not be kept");
        }
    }

    /// Looks at the batch; what becomes messages and what became of the others.
    fn look_at(&self, batch: &RawBatch) -> (Groups, Report) {
        let plan = (self.plans)();
        let kept = self.screens.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut screen = kept
            .filter(|screen| Arc::ptr_eq(screen.plan(), &plan))
            .unwrap_or_else(|| Screen::new(plan, self.event_bytes_max, ERRORS_LISTED_MAX));
        let arrival = Arrival::At(batch.arrival);
        let input = Input { buffer: &batch.bytes, len: batch.len, arrival, order: 0, address: None, user_agent: None };
        let mut groups = Groups::default();
        let report = screen.run(&input, |line, key| groups.add(line, key));
        let mut screens = self.screens.lock().unwrap_or_else(PoisonError::into_inner);
        if screens.len() < SCREENS_MAX {
            screens.push(screen);
        }
        (groups, report)
    }

    /// Produces all groups; the ticket's waiter hears of it when the last of them is delivered.
    fn send(&self, batch: &RawBatch, groups: Groups, done: oneshot::Sender<Result<(), String>>) {
        let bytes = batch.len + groups.list.len() * MESSAGE_OVERHEAD_BYTES;
        self.waiting_bytes.fetch_add(bytes, Relaxed);
        let ticket = Arc::new(Ticket::Batch(Batch {
            // One more than messages: nobody is told before all are sent.
            left: AtomicUsize::new(groups.list.len() + 1),
            failure: Mutex::default(),
            done: Mutex::new(Some(done)),
            bytes,
            waiting_bytes: self.waiting_bytes.clone(),
        }));
        let Ticket::Batch(waiting) = &*ticket else { return };
        let address = batch.client.address.map(|address| address.to_string());
        let user_agent = batch.client.user_agent.as_deref();
        let with_headers = address.is_some() || user_agent.is_some();
        for group in &groups.list {
            let mut record: BaseRecord<'_, [u8], [u8], _> = BaseRecord::with_opaque_to(&self.topic, ticket.clone());
            record.key = group.key.as_deref();
            if with_headers {
                let texts = [(ADDRESS_HEADER, address.as_deref()), (USER_AGENT_HEADER, user_agent)];
                let given = texts.into_iter().filter(|(_, text)| text.is_some());
                let none = OwnedHeaders::new_with_capacity(2);
                record.headers = Some(given.fold(none, |all, (key, value)| all.insert(Header { key, value })));
            }
            if let Err((error, _)) = self.inner.send(record.payload(&group.lines).timestamp(batch.arrival)) {
                waiting.fail(error.to_string());
                waiting.one_done();
            }
        }
        waiting.one_done();
    }

    fn is_full(&self, bytes: usize) -> bool {
        let waiting = self.waiting_bytes();
        // One batch is always taken, however large it is.
        waiting > 0 && waiting + bytes > self.queue_bytes_max
    }
}

impl Intake for Arc<Producer> {
    async fn submit(&self, batch: RawBatch) -> Result<Receipt, Refusal> {
        let unavailable = |reason: String| Refusal::Unavailable { reason, retry_after_s: RETRY_AFTER_S };
        if self.closed.load(Relaxed) {
            return Err(unavailable("the host is stopping".into()));
        }
        if self.is_full(batch.len) {
            return Err(Refusal::Busy { retry_after_s: RETRY_AFTER_S });
        }
        let (done, is_done) = oneshot::channel();
        let this = self.clone();
        let inline = batch.len <= INLINE_BYTES_MAX;
        let produce = move || {
            let (groups, report) = this.look_at(&batch);
            if report.rejected > 0 {
                this.telemetry.ingest.events_rejected.inc_by(report.rejected);
                (this.rejected)(&batch, &report);
            }
            this.send(&batch, groups, done);
            report
        };
        let report = if inline {
            produce()
        } else {
            tokio::task::spawn_blocking(produce).await.map_err(|error| unavailable(error.to_string()))?
        };
        match is_done.await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => return Err(unavailable(format!("Kafka did not take all of it: {reason}"))),
            Err(_) => return Err(unavailable("the host is stopping".into())),
        }
        Ok(Receipt { accepted: report.counted, rejected: report.rejected, errors: report.errors })
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;
    use crate::engine::decode::PADDING_BYTES;
    use crate::engine::plan::{EventPlan, Plan};
    use crate::ingest::Client;

    fn producer(brokers: String, queue_bytes_max: usize) -> Arc<Producer> {
        let event =
            EventPlan { time: None, key: None, id: None, require: vec![], dedupe_ms: 0, lateness_ms: 0, ahead_ms: 0 };
        let (fields, enrichments, filters, dimensions, groups, metrics) = Default::default();
        let plan = Arc::new(Plan { event, fields, enrichments, filters, dimensions, groups, metrics });
        let option = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let settings = KafkaSettings {
            brokers,
            topic: "events".into(),
            group: "g".into(),
            options: vec![option("message.timeout.ms", "1500"), option("retry.backoff.ms", "10")],
            instance: "i".into(),
            alone: true,
        };
        let plans: Plans = Arc::new(move || plan.clone());
        let rejected: Rejected = Arc::new(|_, _| ());
        let made = Producer::connect(&settings, true, plans, rejected, 1000, queue_bytes_max, Arc::default());
        Arc::new(made.unwrap())
    }

    fn batch(lines: &str) -> RawBatch {
        let (mut bytes, len) = (lines.as_bytes().to_vec(), lines.len());
        bytes.resize(len + PADDING_BYTES, 0);
        RawBatch { bytes, len, zstd: None, arrival: 1_000_000, client: Client::default(), messages: None }
    }

    #[test]
    fn acknowledges_what_is_delivered_and_nothing_else() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("events", 3, 1).unwrap();
        let producer = producer(cluster.bootstrap_servers(), 1_000);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let submit = |lines: &str| runtime.block_on(producer.submit(batch(lines)));
        let taken = Receipt { accepted: 2, rejected: 1, errors: vec![(1, "not a JSON object".into())] };
        assert_eq!(submit("{}\nx\n{}\n"), Ok(taken));
        assert_eq!(submit("x").map(|receipt| (receipt.accepted, receipt.rejected)), Ok((0, 1)));
        // What passes is tried again, unseen.
        let passing = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION; 3];
        cluster.request_errors(RDKafkaApiKey::Produce, &passing);
        assert_eq!(submit("{}").map(|receipt| receipt.accepted), Ok(1));
        // What does not is told.
        cluster.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD]);
        assert!(matches!(submit("{}"), Err(Refusal::Unavailable { .. })));
        assert!(producer.problem().is_some());
        let again = || std::iter::repeat_with(|| submit("{}")).take(20).find_map(Result::ok);
        assert_eq!(again().map(|receipt| receipt.accepted), Some(1));
        assert_eq!(producer.problem(), None);
        assert_eq!(producer.waiting_bytes(), 0);
        // Nobody answers: what fits waits for its time, what does not is asked to come back.
        cluster.broker_down(1).unwrap();
        let waiting = runtime.spawn({
            let producer = producer.clone();
            async move { producer.submit(batch(&"{}\n".repeat(200))).await }
        });
        while producer.waiting_bytes() == 0 {
            std::thread::yield_now();
        }
        assert_eq!(submit(&"{}\n".repeat(200)), Err(Refusal::Busy { retry_after_s: RETRY_AFTER_S }));
        assert!(matches!(runtime.block_on(waiting).unwrap(), Err(Refusal::Unavailable { .. })));
        cluster.broker_up(1).unwrap();
        assert_eq!(again().map(|receipt| receipt.accepted), Some(1));
        producer.close();
        assert!(matches!(submit("{}"), Err(Refusal::Unavailable { .. })));
    }

    #[test]
    fn lines_of_a_key_stay_together_and_in_order() {
        let mut groups = Groups::default();
        for (line, key) in [("1", Some("a")), ("2", None), ("3", Some("b")), ("4", Some("a")), ("5", None)] {
            groups.add(line.as_bytes(), key.map(str::as_bytes));
        }
        let long = vec![b'x'; MESSAGE_BYTES_MAX - 3];
        groups.add(&long, Some(b"a"));
        groups.add(b"6", Some(b"a"));
        let text = |group: &Group| {
            let key = group.key.as_deref().map(String::from_utf8_lossy).map(String::from);
            (key, group.lines.len(), String::from_utf8_lossy(&group.lines[..group.lines.len().min(3)]).into_owned())
        };
        let key = |key: &str| Some(key.to_owned());
        let wanted = [
            (key("a"), 3, "1\n4".to_owned()),
            (None, 3, "2\n5".into()),
            (key("b"), 1, "3".into()),
            (key("a"), MESSAGE_BYTES_MAX - 1, "xxx".into()),
        ];
        assert_eq!(groups.list.iter().map(text).collect::<Vec<_>>(), wanted);
    }
}
