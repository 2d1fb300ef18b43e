//! Where the raw events of a topic stand, partition by partition: in Redis where hosts share the state, else in the data folder.

use std::sync::Arc;

use super::folder::Folder;
use crate::engine::delta::SourceId;
use crate::store::redis::{RawPlace, RawPlaces, RedisStore};
use crate::store::{Position, StoreError};

pub enum Places {
    Folder(Folder),
    Redis(Arc<RedisStore>),
}

impl Places {
    pub fn folder(&self) -> Option<&Folder> {
        match self {
            Self::Folder(folder) => Some(folder),
            Self::Redis(_) => None,
        }
    }

    /// Of this host's partitions. `covered`: the checkpoint's positions.
    pub fn all(&self, covered: &[Position]) -> Result<RawPlaces, StoreError> {
        let folder = match self {
            Self::Redis(store) => return store.raw_places(),
            Self::Folder(folder) => folder.progress(),
        };
        let place = |at: &Position| {
            let sent = folder.sent.get(&at.source).copied().unwrap_or(0);
            let noted = folder.pending.iter().find(|(source, from, _)| (*source, *from) == (at.source, sent));
            RawPlace {
                source: at.source,
                sent,
                noted: noted.map(|(_, _, to)| *to),
                covered: at.next,
                unsure: folder.sure.as_ref().is_some_and(|sure| !sure.contains(&at.source)),
                gap: false,
            }
        };
        Ok(RawPlaces { life: String::new(), places: covered.iter().map(place).collect() })
    }

    /// This block is about to be sent. False: the place has changed.
    pub fn note(&self, source: SourceId, from: u64, to: u64) -> Result<bool, StoreError> {
        match self {
            Self::Redis(store) => store.note_raw(source, from, to),
            Self::Folder(folder) => folder.pending(&[(source, from, to)]).map(|()| true),
        }
    }

    /// Lines of the noted block that were not counted, ascending; `None`: the place has changed.
    pub fn uncounted(&self, source: SourceId, from: u64, to: u64) -> Result<Option<Vec<(u64, u32)>>, StoreError> {
        match self {
            Self::Redis(store) => store.uncounted(source, from, to),
            Self::Folder(folder) => Ok(Some(folder.uncounted(source, from, to))),
        }
    }

    pub fn arrived(&self, source: SourceId, from: u64, to: u64) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) => store.raw_arrived(source, from, to),
            Self::Folder(folder) => folder.arrived(&[(source, from, to)]),
        }
    }

    /// All before these positions has arrived; it was asked for in this life of Redis.
    pub fn reached(&self, life: &str, next: &[(SourceId, u64)]) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) => next.iter().try_for_each(|(source, next)| store.raw_reached(life, *source, *next)),
            Self::Folder(folder) => folder.reached(next),
        }
    }
}
