//! The log in use, the host's own journal or Kafka: what is acknowledged is durable in it, and can be read again from any position.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;

use super::border::Border;
use super::host::HostSettings;
use super::hot::LogEnds;
use super::kafka::Counter;
use super::sample::Sampler;
use super::shards::{Listener, Shards};
use super::tick::Ticker;
use crate::catalog::definitions::Active;
use crate::engine::delta::SourceId;
use crate::engine::report::Report;
use crate::ingest::journal::Journal;
use crate::ingest::kafka::consumer::{Consumer, Running};
use crate::ingest::kafka::producer::Producer;
use crate::ingest::kafka::reread::Reread;
use crate::ingest::kafka::{Floors, KafkaError, KafkaSettings, Plans, topic};
use crate::ingest::{Intake, RawBatch, Receipt, Refusal};
use crate::serve::rejects::Rejects;
use crate::store::embedded::Embedded;
use crate::store::ledger::Gap;
use crate::store::memory::MemoryStore;
use crate::store::{HotStore as _, Position, StoreError};
use crate::telemetry::Telemetry;
use crate::time::{Clock, Millis};

/// Which log the state was counted from.
const META_LOG: &str = "log";
const JOURNAL: &str = "the journal of this folder";
/// This host's name in a consumer group, kept over restarts.
const META_INSTANCE: &str = "instance";

/// Letters are durable before the positions behind them; Kafka is given this long.
const LETTERS_WITHIN: Duration = Duration::from_secs(5);

pub enum Log {
    Journal { journal: Arc<Journal>, border: Arc<Border>, name: String },
    Kafka { producer: Arc<Producer>, floors: Arc<Floors>, settings: Box<KafkaSettings>, name: String },
}

impl Log {
    /// Bytes that are not durable and counted yet, or not durable in Kafka.
    pub fn waiting_bytes(&self) -> usize {
        match self {
            Self::Journal { border, .. } => border.waiting_bytes(),
            Self::Kafka { producer, .. } => producer.waiting_bytes(),
        }
    }

    /// Why nothing can be made durable right now.
    pub fn problem(&self) -> Option<String> {
        match self {
            Self::Journal { border, .. } => border.problem(),
            Self::Kafka { producer, .. } => producer.problem(),
        }
    }

    /// No event that arrived before this is still to be read of the log. Of which sources that is so; `None`: of all that are
    /// this host's. A partition that was just taken is not among them until it is known where it stands.
    pub fn floor(&self) -> (Millis, Option<Vec<SourceId>>) {
        match self {
            Self::Journal { .. } => (Millis::MAX, None),
            Self::Kafka { floors, .. } => {
                let all = floors.all();
                let lowest = all.iter().map(|(_, floor)| *floor).min();
                let sources = all.into_iter().map(|(source, _)| source).collect();
                (lowest.unwrap_or_else(|| floors.lowest()), Some(sources))
            }
        }
    }

    /// What was read of the log so far is durable, and so are the letters of what could not be counted.
    pub fn make_durable(&self) -> Result<(), StoreError> {
        match self {
            Self::Journal { journal, .. } => {
                let lanes: Vec<usize> = (0..journal.lanes()).collect();
                journal.sync(&lanes).map_err(|error| StoreError::Engine(error.to_string()))
            }
            Self::Kafka { producer, .. } if producer.letters_kept(LETTERS_WITHIN) => Ok(()),
            Self::Kafka { .. } => Err(StoreError::Engine("Kafka does not take dead letters".into())),
        }
    }

    /// What tells this log from another one.
    pub fn name(&self) -> String {
        match self {
            Self::Journal { name, .. } => name.clone(),
            Self::Kafka { name, .. } => name.clone(),
        }
    }

    /// How far the journal reaches.
    pub fn ends(&self) -> Vec<LogEnds> {
        let Self::Journal { journal, .. } = self else { return Vec::new() };
        let ends = |lane: usize| {
            let first_batch = || journal.read(lane, journal.first(lane)).next()?.ok();
            LogEnds {
                source: lane as SourceId,
                first: journal.first(lane),
                first_arrival: first_batch().map_or(0, |(_, batch)| batch.arrival),
                next: journal.next(lane),
            }
        };
        (0..journal.lanes()).map(ends).collect()
    }

    /// Where these sources of the log begin; what is not known is left out.
    pub fn begins(&self, sources: impl Iterator<Item = SourceId>) -> Vec<(SourceId, u64)> {
        match self {
            Self::Journal { journal, .. } => sources.map(|source| (source, journal.first(source as usize))).collect(),
            Self::Kafka { settings, .. } => {
                let Ok(topic) = Reread::connect(settings, Clock::manual(0)) else { return Vec::new() };
                // Where one question fails, the others would wait as long for nothing.
                sources.map_while(|source| Some((source, topic.first(source).ok()?))).collect()
            }
        }
    }

    /// Bytes on this host's disk.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Journal { journal, .. } => journal.bytes(),
            Self::Kafka { .. } => 0,
        }
    }

    /// Drops what is older than the log's limits and before what a start would read, and nothing that a gap is to be filled
    /// with; Kafka does that itself.
    pub fn expire(
        &self,
        now: Millis,
        covered: &[Position],
        gaps: &[(Gap, Vec<Position>)],
        dedupe_ms: Millis,
    ) -> Result<(), StoreError> {
        let Self::Journal { journal, .. } = self else { return Ok(()) };
        let mut keep_from = vec![0; journal.lanes()];
        let needed = |position: &Position| {
            let lane = position.source as usize;
            journal.first_arriving(lane, position.arrival.saturating_sub(dedupe_ms)).min(position.next)
        };
        for position in covered {
            if let Some(keep) = keep_from.get_mut(position.source as usize) {
                *keep = needed(position);
            }
        }
        for (gap, at) in gaps {
            for (source, until) in gap.until.iter().flatten() {
                let at = at.iter().find(|at| at.source == *source);
                if let Some(keep) = keep_from.get_mut(*source as usize)
                    && at.is_none_or(|at| at.next < *until)
                {
                    *keep = at.map_or(0, needed).min(*keep);
                }
            }
        }
        journal.expire(now, &keep_from).map(drop).map_err(|error| StoreError::Engine(error.to_string()))
    }
}

impl Intake for Log {
    async fn submit(&self, batch: RawBatch) -> Result<Receipt, Refusal> {
        match self {
            Self::Journal { border, .. } => border.submit(batch).await,
            Self::Kafka { producer, .. } => producer.submit(batch).await,
        }
    }
}

/// What is there before the log.
pub struct Parts<'a> {
    pub embedded: &'a Arc<Embedded>,
    pub memory: &'a Arc<MemoryStore>,
    pub active: &'a Arc<ArcSwap<Active>>,
    pub telemetry: &'a Arc<Telemetry>,
    pub sampler: &'a Arc<Sampler>,
}

/// What works beside the log: writes the journal, or reads Kafka.
pub enum Reading {
    /// Ends when it has written what it was given.
    Journal(JoinHandle<()>),
    Kafka(KafkaReading),
}

pub struct KafkaReading {
    settings: KafkaSettings,
    queue_bytes_max: usize,
    rejects: Arc<Rejects>,
    running: Mutex<Option<Running>>,
}

/// Opens the log, and starts the shards that count from it.
pub fn open(
    settings: &HostSettings,
    parts: &Parts<'_>,
    rejects: &Arc<Rejects>,
) -> anyhow::Result<(Arc<Log>, Arc<Shards>, Reading)> {
    let telemetry = parts.telemetry.clone();
    let start =
        |listener| Arc::new(Shards::start(settings.shards, parts.active.clone(), settings.event_bytes_max, listener));
    let Some(kafka) = &settings.kafka else {
        keep_to(JOURNAL, settings, parts)?;
        let journal = Arc::new(Journal::open(&settings.data.join("journal"), settings.journal)?);
        let shards = start(listener(rejects.clone(), telemetry.clone(), parts.sampler.clone(), None));
        let (border, writer) = Border::start(journal.clone(), shards.clone(), telemetry, settings.queue_bytes_max);
        let name = format!("journal {}", instance(parts.embedded)?);
        return Ok((Arc::new(Log::Journal { journal, border, name }), shards, Reading::Journal(writer)));
    };
    let kafka = KafkaSettings { instance: instance(parts.embedded)?, ..kafka.clone() };
    // Blocks, on a runtime of its own: whoever starts a host may have one already.
    let found = std::thread::scope(|scope| scope.spawn(|| topic::prepare(&kafka)).join());
    let found = found.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let cluster = if found.cluster.is_empty() { String::new() } else { format!(" of cluster {}", found.cluster) };
    let name = format!("the Kafka topic `{}`{cluster}", kafka.topic);
    keep_to(&name, settings, parts)?;
    let active = parts.active.clone();
    let plans: Plans = Arc::new(move || active.load().definitions.plan.clone());
    let kept = rejects.clone();
    let rejected = Arc::new(move |batch: &RawBatch, report: &Report| keep_letters(&kept, "http", batch, report));
    let producer = Producer::connect(
        &kafka,
        found.dead_topic,
        plans,
        rejected,
        settings.event_bytes_max,
        settings.queue_bytes_max,
        telemetry.clone(),
    )?;
    let producer = Arc::new(producer);
    let to_topic = Some((kafka.topic.clone(), producer.clone()));
    let shards = start(listener(rejects.clone(), telemetry, parts.sampler.clone(), to_topic));
    let (queue_bytes_max, rejects) = (settings.queue_bytes_max, rejects.clone());
    let log = Log::Kafka { producer, floors: Arc::default(), settings: Box::new(kafka.clone()), name };
    let reading = KafkaReading { settings: kafka, queue_bytes_max, rejects, running: Mutex::default() };
    Ok((Arc::new(log), shards, Reading::Kafka(reading)))
}

/// Positions of one log mean nothing in another.
fn keep_to(log: &str, settings: &HostSettings, parts: &Parts<'_>) -> anyhow::Result<()> {
    let before = parts.embedded.meta_get(META_LOG)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let counted = !parts.memory.positions()?.is_empty();
    let before = before.or_else(|| counted.then(|| JOURNAL.to_owned()));
    match before {
        Some(before) if before == log => Ok(()),
        Some(before) if counted => {
            let folder = settings.data.display();
            bail!(
                "the state in {folder} was counted from {before}; what {log} holds would be counted wrongly on top of it: give another --data folder"
            )
        }
        _ => Ok(parts.embedded.meta_put(META_LOG, log.as_bytes())?),
    }
}

/// This host's name among others.
pub(super) fn instance(embedded: &Embedded) -> anyhow::Result<String> {
    if let Some(known) = embedded.meta_get(META_INSTANCE)? {
        return String::from_utf8(known).context("the name of this host in its data folder");
    }
    let fresh = format!("{:016x}", rand::random::<u64>());
    embedded.meta_put(META_INSTANCE, fresh.as_bytes())?;
    Ok(fresh)
}

impl KafkaReading {
    pub fn start(
        &self,
        ticker: Arc<Ticker>,
        producer: Arc<Producer>,
        floors: Arc<Floors>,
        clock: Clock,
    ) -> Result<(), KafkaError> {
        let (settings, telemetry) = (self.settings.clone(), ticker.telemetry.clone());
        let (rejects, topic) = (self.rejects.clone(), settings.topic.clone());
        let waiting_bytes = Arc::default();
        let counter = Arc::new(Counter { ticker, clock: clock.clone(), waiting_bytes, rejects, topic });
        let running = Consumer::start(settings, counter, producer, floors, self.queue_bytes_max, clock, telemetry)?;
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        Ok(())
    }

    /// For reading once more what was counted.
    pub fn reread(&self, clock: &Clock) -> Result<Reread, KafkaError> {
        Reread::connect(&self.settings, clock.clone())
    }

    pub fn topic(&self) -> &str {
        &self.settings.topic
    }

    pub fn is_caught_up(&self) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().is_some_and(Running::is_caught_up)
    }
}

impl Reading {
    /// Resolves when the log cannot be read any more, with the reason.
    pub async fn failed(&self) -> String {
        let failure = match self {
            Self::Journal(_) => None,
            Self::Kafka(reading) => {
                reading.running.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Running::failure)
            }
        };
        if let Some(mut failure) = failure
            && let Ok(reason) = failure.wait_for(Option::is_some).await
        {
            return reason.clone().unwrap_or_default();
        }
        std::future::pending().await
    }

    /// Takes nothing more, and finishes what was taken.
    pub fn finish(&self, log: &Log) {
        match (self, log) {
            (Self::Journal(writer), Log::Journal { border, .. }) => {
                border.close();
                while border.waiting_bytes() > 0 && !writer.is_finished() {
                    std::thread::yield_now();
                }
            }
            (Self::Kafka(reading), Log::Kafka { producer, .. }) => {
                producer.close();
                if let Some(running) = reading.running.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    running.stop();
                }
            }
            _ => unreachable!("made together"),
        }
    }
}

/// Counts what became of events, and keeps dead letters: in memory for people to look at, and in the topic for them.
fn listener(
    rejects: Arc<Rejects>,
    telemetry: Arc<Telemetry>,
    sampler: Arc<Sampler>,
    kafka: Option<(String, Arc<Producer>)>,
) -> Listener {
    Arc::new(move |source: SourceId, batch: &RawBatch, report: &Report| {
        sampler.offer(batch, report);
        let ingest = &telemetry.ingest;
        ingest.events_accepted.inc_by(report.counted + report.late + report.duplicates);
        ingest.events_rejected.inc_by(report.rejected);
        ingest.events_late.inc_by(report.late);
        ingest.events_duplicate.inc_by(report.duplicates);
        let Some((topic, producer)) = &kafka else { return keep_letters(&rejects, "http", batch, report) };
        let Some(messages) = &batch.messages else { return };
        for letter in &report.letters {
            let message = messages.get(messages.at(letter.start));
            let event = &batch.bytes[letter.start as usize..letter.end as usize];
            let from = format!("{topic}/{source}/{}", message.position);
            rejects.push(message.arrival, &from, &letter.reason, event);
            producer.letter(event, None, &letter.reason, source, message.position, message.arrival);
        }
    })
}

fn keep_letters(rejects: &Rejects, source: &str, batch: &RawBatch, report: &Report) {
    for letter in &report.letters {
        let event = &batch.bytes[letter.start as usize..letter.end as usize];
        rejects.push(batch.arrival, source, &letter.reason, event);
    }
    rejects.count((report.rejected + report.late).saturating_sub(report.letters.len() as u64));
}
