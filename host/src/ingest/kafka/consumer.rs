//! The consumer: one thread that reads the partitions which the group gave us and hands their messages to whoever counts.
//!
//! Partitions are located where the state stands before anything of them is counted, and are let go only when all that was read
//! of them is part of the state. Too much waiting: they are paused, and the group goes on hearing from us.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError as Failure, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use tokio::sync::watch;

use super::group::{Event, Group};
use super::message::{Poison, lines};
use super::partition::{Partition, Stage};
use super::producer::Producer;
use super::{Counting, Floors, KafkaError, KafkaSettings, SESSION_TIMEOUT_MS};
use crate::telemetry::Telemetry;
use crate::time::Clock;

/// Of one partition, before it is handed over.
const BATCH_BYTES: usize = 256 << 10;
/// Of all partitions together.
const BUFFERED_BYTES_MAX: usize = 8 << 20;
/// What was read waits no longer for more.
const LINGER: Duration = Duration::from_millis(5);
const POLL: Duration = Duration::from_millis(100);
/// Messages between two looks at the clock.
const MESSAGES_A_LOOK: u32 = 128;
const STATISTICS_MS: &str = "500";
const FETCH_WAIT_MS: &str = "100";
/// A member that is gone is remembered for a session; then it is alive.
const OTHERS_GONE_WITHIN: Duration = Duration::from_millis(SESSION_TIMEOUT_MS as u64 + 5_000);

/// What the thread says to the host around it.
pub struct Shared {
    pub(super) stop: AtomicBool,
    /// All that was acknowledged before the start was given to those who count.
    pub(super) caught_up: AtomicBool,
    pub(super) floors: Arc<Floors>,
    /// Why the thread has ended by itself, and the host cannot go on.
    pub(super) failure: watch::Sender<Option<String>>,
    pub(super) reachable: AtomicBool,
}

pub struct Running {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Running {
    pub fn is_caught_up(&self) -> bool {
        self.shared.caught_up.load(Relaxed)
    }

    /// Some broker answers.
    pub fn is_reachable(&self) -> bool {
        self.shared.reachable.load(Relaxed)
    }

    /// Why the consumer has ended by itself.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.shared.failure.subscribe()
    }

    /// Lets all partitions go; what was read of them is part of the state.
    pub fn stop(self) {
        self.shared.stop.store(true, Relaxed);
        if self.thread.join().is_err() {
            tracing::error!("the consumer's thread has panicked");
        }
    }
}

pub struct Consumer<C> {
    pub(super) settings: KafkaSettings,
    pub(super) consumer: Arc<BaseConsumer<Group>>,
    pub(super) counting: Arc<C>,
    pub(super) producer: Arc<Producer>,
    pub(super) clock: Clock,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) shared: Arc<Shared>,
    pub(super) queue_bytes_max: usize,
    pub(super) partitions: BTreeMap<i32, Partition>,
    /// There was an answer of the group, so that we know what is ours.
    pub(super) assigned: bool,
    pub(super) generation: u64,
    pub(super) retry_at: Option<Instant>,
    pub(super) buffered_bytes: usize,
    pub(super) flushed_at: Instant,
    pub(super) committed_at: Instant,
    pub(super) paused: bool,
}

impl<C: Counting> Consumer<C> {
    /// Joins the group on a thread of its own.
    pub fn start(
        settings: KafkaSettings,
        counting: Arc<C>,
        producer: Arc<Producer>,
        floors: Arc<Floors>,
        queue_bytes_max: usize,
        clock: Clock,
        telemetry: Arc<Telemetry>,
    ) -> Result<Running, KafkaError> {
        let session = SESSION_TIMEOUT_MS.to_string();
        let mut ours = vec![
            ("group.id", settings.group.as_str()),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("session.timeout.ms", session.as_str()),
            ("heartbeat.interval.ms", "3000"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("enable.partition.eof", "true"),
            ("auto.offset.reset", "error"),
            ("isolation.level", "read_committed"),
            ("statistics.interval.ms", STATISTICS_MS),
            ("fetch.wait.max.ms", FETCH_WAIT_MS),
            ("fetch.message.max.bytes", "4194304"),
            ("queued.max.messages.kbytes", "65536"),
            ("queued.min.messages", "200000"),
            ("topic.metadata.refresh.interval.ms", "30000"),
        ];
        if settings.alone {
            // After a crash we are known at once, without waiting for our own session to end.
            ours.push(("group.instance.id", settings.instance.as_str()));
        }
        let consumer: BaseConsumer<Group> = settings
            .client(&ours)
            .create_with_context(Group::new(&settings.topic))
            .map_err(|error| KafkaError::Setting(error.to_string()))?;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            caught_up: AtomicBool::new(false),
            floors,
            failure: watch::channel(None).0,
            reachable: AtomicBool::new(true),
        });
        let now = Instant::now();
        let this = Self {
            generation: counting.generation(),
            settings,
            consumer: Arc::new(consumer),
            counting,
            producer,
            clock,
            telemetry,
            shared: shared.clone(),
            queue_bytes_max,
            partitions: BTreeMap::new(),
            assigned: false,
            retry_at: None,
            buffered_bytes: 0,
            flushed_at: now,
            committed_at: now,
            paused: false,
        };
        let thread = std::thread::Builder::new().name("kafka".into()).spawn(move || this.run());
        Ok(Running { shared, thread: thread.expect("the system starts threads") })
    }

    fn run(mut self) {
        if let Err(reason) = self.read() {
            tracing::error!(reason, "the consumer cannot go on");
            self.shared.failure.send_replace(Some(reason));
        }
        self.flush_all();
        if let Err(reason) = self.counting.settle() {
            tracing::error!(reason, "what was read last is not stored; it will be read again");
        }
        self.consumer.context().leave(&self.consumer);
    }

    /// Until it is to stop; an error is for good.
    fn read(&mut self) -> Result<(), String> {
        self.expect_nobody(OTHERS_GONE_WITHIN)?;
        self.consumer.subscribe(&[&self.settings.topic]).map_err(|error| error.to_string())?;
        let consumer = self.consumer.clone();
        let mut until_look = MESSAGES_A_LOOK;
        while !self.shared.stop.load(Relaxed) {
            let timeout = if self.buffered_bytes > 0 { LINGER } else { POLL };
            match consumer.poll(timeout) {
                Some(Ok(message)) => {
                    self.take(&message);
                    until_look -= 1;
                    if until_look > 0 {
                        continue;
                    }
                }
                Some(Err(Failure::PartitionEOF(partition))) => self.at_end(partition),
                Some(Err(error)) => self.failed(&error)?,
                None => {}
            }
            until_look = MESSAGES_A_LOOK;
            self.look_around()?;
        }
        Ok(())
    }

    fn look_around(&mut self) -> Result<(), String> {
        if self.flushed_at.elapsed() >= LINGER {
            self.flush_all();
        }
        for event in self.consumer.context().take() {
            match event {
                Event::Assigned(partitions) => self.assigned(&partitions)?,
                Event::Revoked(partitions) => self.revoked(&partitions)?,
                Event::Progress(progress) => self.progress(&progress),
            }
        }
        self.follow_generation();
        self.find_astray()?;
        self.count_held();
        self.note_caught_up();
        self.hold_back()
    }

    /// A message of a partition that we read.
    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let Some(partition) = self.partitions.get_mut(&message.partition()) else { return };
        let offset = message.offset().max(0) as u64;
        if partition.stage == Stage::Astray || offset < partition.end {
            return;
        }
        if let Stage::Ids { until } = partition.stage
            && offset >= until
        {
            self.ids_read(message.partition());
        }
        let Some(partition) = self.partitions.get_mut(&message.partition()) else { return };
        let before = partition.buffered_bytes();
        match lines(message, &self.clock) {
            Ok(lines) => partition.add(&lines),
            Err(Poison { reason, arrival }) => {
                if !matches!(partition.stage, Stage::Ids { .. }) {
                    let value = message.payload().unwrap_or_default();
                    self.producer.letter(value, message.key(), reason, partition.number, offset, arrival);
                    self.counting.put_aside(partition.number, offset, value, reason, arrival);
                }
                partition.read(offset, arrival);
            }
        }
        self.buffered_bytes += partition.buffered_bytes() - before;
        if partition.buffered_bytes() >= BATCH_BYTES {
            let number = message.partition();
            self.flush(number);
        }
        if self.buffered_bytes >= BUFFERED_BYTES_MAX {
            self.flush_all();
        }
    }

    fn at_end(&mut self, number: i32) {
        let Some(partition) = self.partitions.get_mut(&number) else { return };
        if partition.stage == Stage::Astray {
            return;
        }
        partition.at_end = true;
        if matches!(partition.stage, Stage::Ids { .. }) {
            self.ids_read(number);
        }
    }

    pub(super) fn flush(&mut self, number: i32) {
        let Some(partition) = self.partitions.get_mut(&number) else { return };
        let bytes = partition.buffered_bytes();
        if let Some(given) = partition.take() {
            self.buffered_bytes -= bytes;
            self.counting.give(given);
        }
    }

    pub(super) fn flush_all(&mut self) {
        let numbers: Vec<i32> = self.partitions.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.flush(number));
        self.flushed_at = Instant::now();
    }

    fn failed(&mut self, error: &Failure) -> Result<(), String> {
        match error {
            Failure::MessageConsumptionFatal(code) => Err(format!("Kafka: {code}")),
            // What we were to read next is gone.
            Failure::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.counting.forget();
                Ok(())
            }
            error => {
                tracing::debug!(%error, "reading from Kafka");
                Ok(())
            }
        }
    }
}
