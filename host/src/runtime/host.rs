//! A host: opened, recovered, ticking.

mod running;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use axum::Router;

use super::alerts::{self, Watcher};
use super::backfill::{self, Backfill};
use super::corrections::Corrections;
use super::hot::Hot;
use super::log::{Log, Reading};
use super::raw::Raw;
use super::reload::Keeper;
use super::roles::Roles;
use super::sample::{self, Sampler};
use super::shards::Shards;
use super::status::Status;
use super::tick::{HISTORY_LEASE_MS, Since, Ticker};
use super::waiting::HistoryWaiting;
use super::{log, raw};
use crate::alert::Alerts;
use crate::catalog::definitions::Active;
use crate::catalog::diagnostic::Diagnostic;
use crate::ingest::journal::JournalSettings;
use crate::ingest::kafka::KafkaSettings;
use crate::ingest::{Intake, RawBatch, Receipt, Refusal, collect, http};
use crate::plugin::{Limits, Registry};
use crate::serve::{self, Services, rejects::Rejects};
use crate::store::clickhouse::{Address, ClickHouse};
use crate::store::embedded::Embedded;
use crate::store::reader::JoinedReader;
use crate::store::redis::Lease;
use crate::store::{HistoryStore, Position, StateReader, StoreError};
use crate::telemetry::Telemetry;
use crate::time::{Clock, Millis};

pub struct HostSettings {
    pub metrics: PathBuf,
    pub plugins: PathBuf,
    pub data: PathBuf,
    pub shards: usize,
    pub tick_ms: Millis,
    pub grace_ms: Millis,
    pub checkpoint_ms: Millis,
    pub event_bytes_max: usize,
    pub queue_bytes_max: usize,
    pub data_bytes_max: u64,
    /// Of minutes that wait for ClickHouse beyond what is kept anyway; with more nothing is counted.
    pub history_waiting_bytes_max: usize,
    /// Of one core, that filling new metrics backwards may take.
    pub backfill_percent_max: u32,
    pub journal: JournalSettings,
    /// The log instead of the journal.
    pub kafka: Option<KafkaSettings>,
    /// Where history and raw events go, instead of the data folder.
    pub clickhouse: Option<Address>,
    /// Where the hot state is, if not in this host's memory.
    pub redis: Option<String>,
    /// All, but where Kafka and Redis are there for the others.
    pub roles: Roles,
    pub limits: Limits,
    pub http: http::Settings,
    pub serve: serve::Settings,
    /// Demo events per second.
    pub demo: Option<f64>,
    pub clock: Clock,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The definitions are rejected.
    #[error("{} {}", .0.len(), if .0.len() == 1 { "error in the definitions" } else { "errors in the definitions" })]
    Definitions(Vec<Diagnostic>),
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

pub struct Host {
    pub clock: Clock,
    pub active: Arc<ArcSwap<Active>>,
    pub ticker: Arc<Ticker>,
    pub status: Arc<Status>,
    pub services: Arc<Services>,
    pub router: Router,
    watcher: Arc<Watcher>,
    log: Arc<Log>,
    reading: Reading,
    keeper: Arc<Keeper>,
    backfill: Option<Arc<Backfill>>,
    roles: Roles,
    tick_ms: Millis,
    demo: Option<f64>,
}

impl Host {
    /// Opens the data folder, loads the definitions, and counts again what was acknowledged after the last checkpoint.
    pub fn start(settings: HostSettings) -> Result<Self, StartError> {
        let clock = settings.clock.clone();
        let telemetry = Arc::new(Telemetry::default());
        let Stores { embedded, clickhouse, history, hot } = Stores::open(&settings)?;
        let roles = settings.roles;
        let memory = hot.memory();
        let plugins = settings.plugins.clone();
        // One more than there are shards: what is filled backwards is enriched beside them.
        let threads = settings.shards + 1;
        let registry = Registry::new(plugins, settings.limits.clone(), threads).map_err(anyhow::Error::from)?;
        let registry = Arc::new(registry);
        let metrics = settings.metrics.clone();
        let (store, no_backfill) = (embedded.clone(), backfill::not_possible(&settings));
        let keeper = Keeper::start(metrics, registry.clone(), store, clock.clone(), telemetry.clone(), no_backfill)?;
        let keeper = Arc::new(keeper.map_err(StartError::Definitions)?);
        let active = keeper.active().clone();
        let rejects = Arc::new(Rejects::default());
        let (sampler, sampled) = Sampler::new();
        let parts = log::Parts {
            embedded: &embedded,
            memory: &memory,
            active: &active,
            telemetry: &telemetry,
            sampler: &sampler,
        };
        let (log, shards, reading) = log::open(&settings, &parts, &rejects)?;
        let positions = hot.positions().map_err(anyhow::Error::from)?;
        let raw = match &clickhouse {
            Some(clickhouse) if roles.work => {
                Some(Arc::new(open_raw(&settings, &parts, clickhouse, (&log, &reading), &hot, &positions)?))
            }
            _ => raw::leave(&embedded).map(|()| None).map_err(anyhow::Error::from)?,
        };
        let ticker = Arc::new(ticker(&settings, &parts, (log.clone(), shards.clone()), (hot, clickhouse, raw))?);
        let backfill = Backfill::of(&settings, &ticker);
        let reader: Arc<dyn StateReader> = Arc::new(JoinedReader::new(memory, Some(history)));
        let (place, lease) = alerts::place(&ticker.hot, &embedded, settings.serve.refresh_ms);
        let alerts = Alerts::new(place, clock.clone(), telemetry.clone());
        let status = Arc::new(Status {
            tick_ms: settings.tick_ms,
            started_at: clock.now(),
            clock: clock.clone(),
            registry,
            active: active.clone(),
            log: log.clone(),
            telemetry: telemetry.clone(),
            ticker: ticker.clone(),
            totals: shards.totals.clone(),
            alerts: alerts.clone(),
            recovered: AtomicBool::new(false),
            failures: Mutex::default(),
            history: Mutex::default(),
        });
        let door = http::Door::new(
            Arc::new(Gate { log: log.clone(), ticker: ticker.clone() }),
            settings.http,
            clock.clone(),
            telemetry.clone(),
        );
        let services =
            Services::new(reader, active.clone(), status.clone(), telemetry, clock.clone(), settings.serve, rejects);
        sample::start(sampled, sampler, &services);
        let events = if roles.ingest {
            http::router(door.clone()).merge(collect::router(door))
        } else {
            serve::elsewhere(&[http::PATHS, &collect::paths()].concat(), "ingest")
        };
        let watcher = Arc::new(Watcher::new(alerts, services.clone(), status.clone(), lease));
        let router = serve::router(services.clone(), events, roles.serve);
        Ok(Self {
            clock,
            active,
            ticker,
            status,
            services,
            router,
            watcher,
            log,
            reading,
            keeper,
            backfill,
            roles,
            tick_ms: settings.tick_ms,
            demo: settings.demo,
        })
    }

    /// Counts again what was acknowledged after the last checkpoint; from Kafka it is only begun.
    pub fn recover(&self) -> anyhow::Result<()> {
        if !self.roles.work {
            self.ticker.tick(self.clock.now())?;
            self.status.recovered.store(true, Relaxed);
            return Ok(());
        }
        match (&*self.log, &self.reading) {
            (Log::Journal { border, .. }, _) => {
                let recovered = self.ticker.recover()?;
                self.ticker.tick(self.clock.now())?;
                border.open();
                self.status.recovered.store(true, Relaxed);
                tracing::info!(batches = recovered.batches, before_for_ids = recovered.ids_batches, "recovered");
            }
            (Log::Kafka { producer, floors, .. }, Reading::Kafka(reading)) => {
                self.ticker.begin_definitions()?;
                reading.start(self.ticker.clone(), producer.clone(), floors.clone(), self.clock.clone())?;
            }
            (Log::Kafka { .. }, Reading::Journal(_)) => unreachable!("made together"),
        }
        Ok(())
    }

    /// One tick: everything acknowledged before it is visible after it. True: a checkpoint is due.
    pub fn tick(&self) -> anyhow::Result<bool> {
        let now = self.clock.now();
        let outcome = self.ticker.tick(now);
        self.status.note(now, outcome.as_ref().err().map(ToString::to_string));
        self.services.live.set_stale(self.ticker.hot.stale(), now);
        Ok(outcome?)
    }

    /// Asks the rules whose anomalies are told. What is to be told goes out while the host runs.
    pub fn look(&self) {
        self.watcher.look(self.clock.now());
    }

    /// Applies definitions and plugins that have changed.
    pub fn reload(&self) {
        match self.keeper.check(|active| self.ticker.change_definitions(active, self.clock.now())) {
            Ok(Some(_)) => self.services.live.definitions_changed(self.clock.now()),
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "definitions cannot be applied"),
        }
    }
}

/// Where everything is kept.
struct Stores {
    embedded: Arc<Embedded>,
    clickhouse: Option<Arc<ClickHouse>>,
    history: Arc<dyn HistoryStore>,
    hot: Hot,
}

impl Stores {
    fn open(settings: &HostSettings) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&settings.data).with_context(|| format!("cannot make {}", settings.data.display()))?;
        let embedded = Arc::new(open_store(&settings.data.join("store"))?);
        let clickhouse = settings.clickhouse.as_ref().map(ClickHouse::new).transpose()?.map(Arc::new);
        let history: Arc<dyn HistoryStore> = match &clickhouse {
            Some(clickhouse) => clickhouse.clone(),
            None => embedded.history(),
        };
        let redis = settings.redis.as_deref().filter(|_| settings.roles.work || settings.roles.serve);
        let hot = Hot::open(redis, &embedded, history.clone(), &settings.clock)?;
        Ok(Self { embedded, clickhouse, history, hot })
    }
}

fn ticker(
    settings: &HostSettings,
    parts: &log::Parts<'_>,
    (log, shards): (Arc<Log>, Arc<Shards>),
    (hot, clickhouse, raw): (Hot, Option<Arc<ClickHouse>>, Option<Arc<Raw>>),
) -> anyhow::Result<Ticker> {
    Ok(Ticker {
        shards,
        log,
        hot,
        memory: parts.memory.clone(),
        embedded: parts.embedded.clone(),
        active: parts.active.clone(),
        instance: log::instance(parts.embedded)?,
        differing: Mutex::default(),
        works: settings.roles.work,
        telemetry: parts.telemetry.clone(),
        grace_ms: settings.grace_ms,
        checkpoint_ms: settings.checkpoint_ms,
        // The demo's past is still to come.
        source_floor: Arc::new(AtomicI64::new(if settings.demo.is_some() { 0 } else { Millis::MAX })),
        visible: AtomicI64::new(0),
        closed: AtomicU32::new(0),
        covered: Mutex::default(),
        written: Mutex::default(),
        since: Mutex::new(Since::default()),
        data_bytes_max: settings.data_bytes_max,
        clickhouse,
        raw,
        behind: Mutex::default(),
        history_waiting: HistoryWaiting::new(settings.history_waiting_bytes_max),
        history_lease: Lease::new("history", HISTORY_LEASE_MS),
        ticking: Mutex::default(),
        astray: AtomicBool::new(false),
        corrections: Corrections::default(),
    })
}

/// Raw events are read again from the log; how far they are is kept where the state is.
fn open_raw(
    settings: &HostSettings,
    parts: &log::Parts<'_>,
    clickhouse: &Arc<ClickHouse>,
    log: (&Log, &Reading),
    hot: &Hot,
    positions: &[Position],
) -> anyhow::Result<Raw> {
    let folder = |shared| raw::Folder::open(parts.embedded.clone(), positions, shared);
    let (origin, from) = match log {
        (Log::Journal { journal, .. }, _) => {
            let from = raw::FromJournal::new(journal.clone(), folder(false)?, settings.journal.bytes_max);
            (log::instance(parts.embedded)?, raw::From::Journal(from))
        }
        (Log::Kafka { .. }, Reading::Kafka(reading)) => {
            let places = match hot {
                Hot::Memory(_) => raw::Places::Folder(folder(true)?),
                Hot::Redis(store) => raw::Places::Redis(store.clone()),
            };
            let from = raw::FromTopic::new(places, reading.reread(&settings.clock)?);
            (reading.topic().to_owned(), raw::From::Topic(from))
        }
        (Log::Kafka { .. }, Reading::Journal(_)) => unreachable!("made together"),
    };
    let sending = raw::Sending {
        clickhouse: clickhouse.clone(),
        active: parts.active.clone(),
        telemetry: parts.telemetry.clone(),
        event_bytes_max: settings.event_bytes_max,
        origin,
        lost: AtomicU64::new(0),
        ending: AtomicBool::new(false),
        asked: AtomicU64::new(0),
    };
    Ok(Raw::new(sending, from))
}

/// Takes no more while too much waits for ClickHouse.
struct Gate {
    log: Arc<Log>,
    ticker: Arc<Ticker>,
}

impl Intake for Gate {
    async fn submit(&self, batch: RawBatch) -> Result<Receipt, Refusal> {
        // A topic keeps what is not counted yet.
        if let (Log::Journal { .. }, Some(reason)) = (&*self.log, self.ticker.full()) {
            return Err(Refusal::Unavailable { reason, retry_after_s: 10 });
        }
        self.log.submit(batch).await
    }
}

/// A host that was just killed may still hold the folder for a moment.
fn open_store(folder: &Path) -> Result<Embedded, StoreError> {
    const TRIES: u32 = 50;
    for _ in 0..TRIES {
        match Embedded::open(folder) {
            Err(StoreError::Locked { .. }) => std::thread::sleep(Duration::from_millis(100)),
            outcome => return outcome,
        }
    }
    Embedded::open(folder)
}
