//! Where the raw events of a topic stand, partition by partition: in Redis where hosts share the state, else in the data folder.

use std::ops::Range;
use std::sync::Arc;

use super::folder::Folder;
use crate::engine::delta::{SourceId, Uncounted};
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
                last: folder.last.get(&at.source).copied(),
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

    /// The noted block has arrived; `last`: where its last event stood.
    pub fn arrived(&self, source: SourceId, from: u64, to: u64, last: Option<u64>) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) => store.raw_arrived(source, from, to, last),
            Self::Folder(folder) => {
                folder.arrived(&[(source, from, to)], &last.map(|last| (source, last)).into_iter().collect::<Vec<_>>())
            }
        }
    }

    /// All before these positions has arrived, the last event where it says; it was asked for in this life of Redis.
    pub fn reached(&self, life: &str, next: &[(SourceId, u64, Option<u64>)]) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) => {
                next.iter().try_for_each(|(source, next, last)| store.raw_reached(life, *source, *next, *last))
            }
            Self::Folder(folder) => folder.reached(next),
        }
    }

    /// What had arrived of a source from `from` on is gone: it is sent again. `lines`: what was not counted of it, piece by
    /// piece. False: the place has changed meanwhile.
    pub fn again(
        &self,
        place: &RawPlace,
        from: u64,
        lines: &[(Range<u64>, Vec<Uncounted>)],
    ) -> Result<bool, StoreError> {
        match self {
            Self::Redis(store) => {
                for (range, lines) in lines {
                    if !store.keep_again(place.source, range.clone(), lines)? {
                        return Ok(false);
                    }
                }
                store.raw_again(place.source, place.sent, from)
            }
            Self::Folder(folder) => {
                let lines: Vec<Uncounted> = lines.iter().flat_map(|(_, lines)| lines).copied().collect();
                folder.again(&[(place.source, from)], &lines).map(|()| true)
            }
        }
    }
}
