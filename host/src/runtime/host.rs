//! A running host: opened, recovered, ticking, and stopped in order.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::alerts::{self, Watcher};
use super::backfill::{self, Backfill};
use super::corrections::Corrections;
use super::hot::Hot;
use super::log::{Log, Reading};
use super::raw::Raw;
use super::reload::Keeper;
use super::roles::Roles;
use super::sample::{self, Sampler};
use super::status::Status;
use super::tick::{HISTORY_LEASE_MS, Since, Ticker};
use super::waiting::HistoryWaiting;
use super::watch::Watch;
use super::{demo_feed, log, raw};
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

/// Between two looks at whether the start is over.
const CAUGHT_UP_LOOK: Duration = Duration::from_millis(10);
/// Between two blocks of raw events, unless more waits; no longer than between two checkpoints.
const RAW_EVERY: Duration = Duration::from_secs(1);

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
        std::fs::create_dir_all(&settings.data).with_context(|| format!("cannot make {}", settings.data.display()))?;
        let embedded = Arc::new(open_store(&settings.data.join("store")).map_err(anyhow::Error::from)?);
        let clickhouse = settings.clickhouse.as_ref().map(ClickHouse::new).transpose().map_err(anyhow::Error::from)?;
        let clickhouse = clickhouse.map(Arc::new);
        let history: Arc<dyn HistoryStore> = match &clickhouse {
            Some(clickhouse) => clickhouse.clone(),
            None => embedded.history(),
        };
        let roles = settings.roles;
        let redis = settings.redis.as_deref().filter(|_| roles.work || roles.serve);
        let hot = Hot::open(redis, &embedded, history.clone(), &clock)?;
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
        let ticker = Arc::new(Ticker {
            shards: shards.clone(),
            log: log.clone(),
            hot,
            memory: memory.clone(),
            embedded: embedded.clone(),
            active: active.clone(),
            instance: log::instance(&embedded)?,
            differing: Mutex::default(),
            works: roles.work,
            telemetry: telemetry.clone(),
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
        });
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

    /// Serves until `stop` resolves, then finishes what was taken, and checkpoints.
    pub async fn run(
        self,
        listener: TcpListener,
        refresh_ms: Millis,
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let (stopping, stopped) = watch::channel(false);
        let host = Arc::new(self);
        let watch = {
            let (keeper, looking) = (host.keeper.clone(), host.clone());
            Watch::start(move || keeper.watched(), move || looking.reload())
        };
        let server = {
            let mut stopped = stopped.clone();
            let telemetry = host.services.telemetry.clone();
            let until = async move { drop(stopped.wait_for(|stop| *stop).await) };
            tokio::spawn(serve::listen::listen(listener, host.router.clone(), telemetry, until))
        };
        let recovering = host.clone();
        tokio::task::spawn_blocking(move || recovering.recover()).await??;
        if let Some(backfill) = &host.backfill {
            backfill.start();
        }
        let listening = host.ticker.hot.listen()?;
        let last = host.ticker.hot.positions()?.iter().map(|position| position.arrival).max();
        let demo = host.demo.map(|rate| {
            let floor = host.ticker.source_floor.clone();
            tokio::spawn(demo_feed::run(host.log.clone(), rate, last, host.clock.clone(), floor, stopped.clone()))
        });
        let ticks = tokio::spawn(ticks(host.clone(), stopped.clone()));
        let refreshes = tokio::spawn(refreshes(host.clone(), refresh_ms, stopped.clone()));
        // Without a copy of the state there is nothing to ask.
        let sees = host.roles.work || host.roles.serve;
        let telling = sees.then(|| tokio::spawn(alerts::run(host.watcher.clone(), refresh_ms, stopped.clone())));
        let raw = tokio::spawn(raw_events(host.clone(), stopped.clone()));
        let caught_up = tokio::spawn(catch_up(host.clone(), stopped));
        let failure = tokio::select! {
            () = stop => None,
            reason = host.reading.failed() => Some(reason),
        };
        tracing::info!("stopping: no more events are taken, what was taken is finished");
        let _ = stopping.send(true);
        host.services.live.close();
        host.services.taps.close();
        for task in [Some(server), demo, telling, Some(ticks), Some(refreshes), Some(raw), Some(caught_up)]
            .into_iter()
            .flatten()
        {
            // A task that failed has said so; the others are to end all the same.
            let _ = task.await;
        }
        tokio::task::spawn_blocking(move || drop(listening)).await?;
        tokio::task::spawn_blocking(move || watch.stop()).await?;
        tokio::task::spawn_blocking(move || finish(&host)).await??;
        failure.map_or(Ok(()), |reason| Err(anyhow::Error::msg(reason)))
    }
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

/// Sends raw events as checkpoints cover them.
async fn raw_events(host: Arc<Host>, mut stopped: watch::Receiver<bool>) {
    let Some(raw) = host.ticker.raw.clone() else { return };
    let checkpoint = Duration::from_millis(host.ticker.checkpoint_ms.max(1) as u64);
    let mut every = tokio::time::interval(RAW_EVERY.min(checkpoint));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !*stopped.borrow() {
        tokio::select! {
            _ = every.tick() => {}
            _ = stopped.changed() => return,
        }
        let covered = host.ticker.covered();
        let sending = raw.clone();
        let mut sent = tokio::task::spawn_blocking(move || sending.send_all(&covered));
        let outcome = tokio::select! {
            outcome = &mut sent => outcome,
            _ = stopped.changed() => {
                raw.end();
                sent.await
            }
        };
        if let Err(error) = outcome {
            tracing::error!(%error, "sending raw events failed");
        }
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

/// The last cut, and a checkpoint: the next start finds nothing to count again.
fn finish(host: &Host) -> anyhow::Result<()> {
    if let Some(backfill) = &host.backfill {
        backfill.stop();
    }
    host.reading.finish(&host.log);
    let last = host.ticker.tick(host.clock.now()).and_then(|_| host.ticker.checkpoint(host.clock.now()));
    let last = last.and_then(|()| host.ticker.leave());
    match last {
        // The log has it; the next start goes on from there.
        Err(error) if matches!(host.ticker.hot, Hot::Redis(_)) => {
            tracing::warn!(%error, "not all that was taken is counted: the next start does that");
        }
        outcome => outcome?,
    }
    if let Some(raw) = &host.ticker.raw {
        raw.end();
        raw.send_all(&host.ticker.covered());
    }
    Ok(())
}

/// Ready when all that was acknowledged before the start is visible.
async fn catch_up(host: Arc<Host>, mut stopped: watch::Receiver<bool>) {
    let Reading::Kafka(reading) = &host.reading else { return };
    if !host.roles.work {
        return;
    }
    while !reading.is_caught_up() {
        tokio::select! {
            () = tokio::time::sleep(CAUGHT_UP_LOOK) => {}
            _ = stopped.changed() => return,
        }
    }
    let settling = host.clone();
    let settle = move || {
        settling.ticker.shards.wait_for(&settling.ticker.shards.mark());
        settling.tick()
    };
    match tokio::task::spawn_blocking(settle).await {
        Ok(Ok(_)) => {
            host.status.recovered.store(true, Relaxed);
            tracing::info!("recovered: all that was in Kafka at the start is visible");
        }
        failed => tracing::error!(?failed, "the first tick failed"),
    }
}

async fn ticks(host: Arc<Host>, mut stopped: watch::Receiver<bool>) {
    let mut every = tokio::time::interval(Duration::from_millis(host.tick_ms.max(1) as u64));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut checkpoint: Option<tokio::task::JoinHandle<()>> = None;
    while !*stopped.borrow() {
        tokio::select! {
            _ = every.tick() => {}
            _ = stopped.changed() => break,
        }
        let ticking = host.clone();
        let due = match tokio::task::spawn_blocking(move || ticking.tick()).await {
            Ok(Ok(due)) => due,
            failed => {
                tracing::error!(?failed, "the tick failed");
                false
            }
        };
        // One at a time; ticks go on meanwhile.
        if due && checkpoint.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
            let saving = host.clone();
            checkpoint = Some(tokio::task::spawn_blocking(move || {
                let outcome = saving
                    .ticker
                    .checkpoint(saving.clock.now())
                    .inspect_err(|error| tracing::error!(%error, "the checkpoint failed"));
                saving.status.note_checkpoint(outcome.err().map(|error| error.to_string()));
            }));
        }
    }
    if let Some(checkpoint) = checkpoint {
        // What failed has said so.
        let _ = checkpoint.await;
    }
}

async fn refreshes(host: Arc<Host>, refresh_ms: Millis, mut stopped: watch::Receiver<bool>) {
    let mut every = tokio::time::interval(Duration::from_millis(refresh_ms.max(1) as u64));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !*stopped.borrow() {
        tokio::select! {
            _ = every.tick() => {}
            _ = stopped.changed() => return,
        }
        let refreshing = host.clone();
        let refresh = move || refreshing.services.live.refresh(refreshing.clock.now());
        if let Err(error) = tokio::task::spawn_blocking(refresh).await {
            tracing::error!(%error, "a refresh failed");
        }
    }
}
