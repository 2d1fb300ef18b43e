//! While a host runs: its tasks, and their end in order.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use super::Host;
use crate::runtime::hot::Hot;
use crate::runtime::log::Reading;
use crate::runtime::watch::Watch;
use crate::runtime::{alerts, demo_feed};
use crate::serve;
use crate::time::Millis;

/// Between two looks at whether the start is over.
const CAUGHT_UP_LOOK: Duration = Duration::from_millis(10);
/// Between two blocks of raw events, unless more waits; no longer than between two checkpoints.
const RAW_EVERY: Duration = Duration::from_secs(1);

impl Host {
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
        if let Some(refreshed) = host.services.threads.spawn_blocking(refresh)
            && let Err(error) = refreshed.await
        {
            tracing::error!(%error, "a refresh failed");
        }
    }
}
