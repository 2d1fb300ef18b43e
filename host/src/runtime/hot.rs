//! The hot store in use: this host's memory, which its checkpoint carries over a restart, or Redis with a copy in memory.

use std::sync::Arc;

use anyhow::bail;

use crate::engine::delta::{Delta, GROUP_ALL, SourceId, Uncounted};
use crate::store::embedded::Embedded;
use crate::store::memory::MemoryStore;
use crate::store::redis::{Lease, Others, RedisStore, Settings, Subscription};
use crate::store::{HistoryStore, HotStore, Position, StateReader as _, StoreError};
use crate::time::{Clock, Millis, Minute};

/// Where the hot state of a data folder is.
const META_HOT: &str = "hot";
const IN_REDIS: &str = "redis";

pub enum Hot {
    Memory(Arc<MemoryStore>),
    Redis(Arc<RedisStore>),
}

impl Hot {
    /// State that was begun in one place does not go on in the other.
    pub fn open(
        redis: Option<&str>,
        embedded: &Embedded,
        history: Arc<dyn HistoryStore>,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        let memory: MemoryStore = embedded.load_with(history)?;
        let counted = !memory.positions()?.is_empty();
        let in_redis = embedded.meta_get(META_HOT)?.is_some_and(|place| place == IN_REDIS.as_bytes());
        let Some(url) = redis else {
            if in_redis {
                bail!(
                    "the counts of this data folder are in Redis: give --redis, or another --data folder to begin anew"
                );
            }
            return Ok(Self::Memory(Arc::new(memory)));
        };
        if counted {
            bail!(
                "the counts of this data folder are in the folder itself, and Redis would not have them: give another --data folder to begin in Redis, or leave out --redis"
            );
        }
        let store = RedisStore::open(Settings::new(url, clock.clone()))?;
        embedded.meta_put(META_HOT, IN_REDIS.as_bytes())?;
        Ok(Self::Redis(Arc::new(store)))
    }

    /// What answers queries.
    pub fn memory(&self) -> Arc<MemoryStore> {
        match self {
            Self::Memory(memory) => memory.clone(),
            Self::Redis(store) => store.mirror(),
        }
    }

    /// Up to where the log is counted. How far gaps are filled is not among them.
    pub fn positions(&self) -> Result<Vec<Position>, StoreError> {
        let mut positions = match self {
            Self::Memory(memory) => memory.positions(),
            Self::Redis(store) => store.positions(),
        }?;
        positions.retain(|position| position.group == GROUP_ALL);
        Ok(positions)
    }

    /// This host alone counts these sources of the log from now on.
    pub fn take_over(&self, log: &str, sources: &[SourceId]) -> Result<(), StoreError> {
        if let Self::Redis(store) = self {
            store.bind(log)?;
            store.take_over(sources)?;
        }
        Ok(())
    }

    /// What must be in before more is cut.
    pub fn settle(&self) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) if store.waiting() > 0 => store.settle(),
            _ => Ok(()),
        }
    }

    /// Positions may have gone back since this was last asked.
    pub fn began_again(&self) -> bool {
        matches!(self, Self::Redis(store) if store.began_again())
    }

    /// `uncounted`: lines that Redis is to keep with it.
    pub fn apply(&self, delta: Delta, uncounted: Option<Vec<Uncounted>>) -> Result<(), StoreError> {
        match self {
            Self::Memory(memory) => memory.apply(delta).map(drop),
            Self::Redis(store) => store.apply_with(delta, uncounted).map(drop),
        }
    }

    /// After each tick: what others have changed, and what others read.
    pub fn share(&self, applied: bool) -> Result<(), StoreError> {
        let Self::Redis(store) = self else { return Ok(()) };
        if !applied {
            store.sync()?;
        }
        store.write_readable().map(drop)
    }

    /// No event of this host's sources, of those in `of`, will come for minutes before the given one. The first minute that is
    /// not closed: all sources of all hosts are past those before it.
    pub fn close_up_to(&self, minute: Minute, of: Option<&[SourceId]>) -> Result<Minute, StoreError> {
        match self {
            Self::Memory(memory) => {
                memory.close_up_to(minute);
                Ok(memory.provisional_from())
            }
            Self::Redis(store) => store.close_up_to(minute, of),
        }
    }

    /// Drops what history has and nothing can still come for: before `minute`, as far as this host knows. `writes`: it is this
    /// host that writes history.
    pub fn forget_before(&self, minute: Minute, writes: bool) -> Result<(), StoreError> {
        match self {
            Self::Memory(memory) => drop(memory.evict(minute)),
            Self::Redis(store) => store.forget_unneeded(minute, writes)?,
        }
        Ok(())
    }

    /// Whether it is this host that writes history which hosts share.
    pub fn writes_history(&self, lease: &Lease) -> Result<bool, StoreError> {
        match self {
            Self::Memory(_) => Ok(true),
            Self::Redis(store) => Ok(store.take(lease)?.is_some()),
        }
    }

    /// Combinations that a limit did not keep, counted once a tick.
    pub fn over(&self) -> u64 {
        match self {
            Self::Memory(memory) => memory.limits().metrics.iter().map(|metric| metric.over).sum(),
            Self::Redis(store) => store.over(),
        }
    }

    /// Hears of changes that other hosts make, as long as what it gives is kept.
    pub fn listen(&self) -> Result<Option<Subscription>, StoreError> {
        match self {
            Self::Memory(_) => Ok(None),
            Self::Redis(store) => store.listen().map(Some),
        }
    }

    /// What the other hosts on this store say of themselves; they hear the same of this one.
    pub fn meet(&self, host: &str, digest: &str, full: bool, now: Millis) -> Result<Others, StoreError> {
        match self {
            Self::Memory(_) => Ok(Others::default()),
            Self::Redis(store) => store.meet(host, digest, full, now),
        }
    }

    /// This host ends, and no other waits for it or for what it does for all.
    pub fn leave(&self, host: &str, lease: &Lease) -> Result<(), StoreError> {
        let Self::Redis(store) = self else { return Ok(()) };
        store.give_back(lease)?;
        store.leave(host)
    }

    /// Why what is answered may be old.
    pub fn stale(&self) -> Option<String> {
        match self {
            Self::Memory(_) => None,
            Self::Redis(store) => store.stale(),
        }
    }

    /// This host counts these sources from now on, from where the state stands; where it has never seen one, from the
    /// beginning of its log. `log`: which one it is. `ends`: for each source where its log begins, with the first arrival
    /// there, and where it ends. `ahead_ms`: how far an event may be ahead of its arrival.
    pub fn begin(&self, log: &str, ends: &[LogEnds], ahead_ms: Millis) -> anyhow::Result<()> {
        let Self::Redis(store) = self else { return Ok(()) };
        let sources: Vec<SourceId> = ends.iter().map(|end| end.source).collect();
        self.take_over(log, &sources)?;
        let stored = store.positions()?;
        let at = |source: SourceId| stored.iter().find(|at| (at.group, at.source) == (GROUP_ALL, source));
        for end in ends {
            if let Some(at) = at(end.source)
                && at.next > end.next
            {
                bail!(
                    "Redis has counted source {} up to {}, but its log ends at {}: it is another log, or has lost its end",
                    end.source,
                    at.next,
                    end.next
                );
            }
        }
        let cut: Vec<&LogEnds> = ends.iter().filter(|end| end.first > 0 && at(end.source).is_none()).collect();
        let positions: Vec<Position> = cut
            .iter()
            .map(|end| Position { group: GROUP_ALL, source: end.source, next: end.first, arrival: end.first_arrival })
            .collect();
        store.begin(&positions)?;
        if let Some(newest) = cut.iter().map(|end| end.first_arrival).max() {
            // The log no longer reaches back to its beginning: an hour that may be missing something is left to history.
            let whole = Minute::of(newest + ahead_ms);
            tracing::warn!("the log does not reach back to what Redis has lost: older minutes are left to history");
            store.forget_before(Minute(whole.0 / 60 * 60 + 60))?;
        }
        Ok(())
    }
}

/// How far a source's log reaches.
pub struct LogEnds {
    pub source: SourceId,
    pub first: u64,
    pub first_arrival: Millis,
    pub next: u64,
}
