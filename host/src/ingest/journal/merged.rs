//! Parts of several lanes read side by side, about in the order in which their batches arrived.

use super::{Batches, Journal, JournalError};
use crate::ingest::RawBatch;
use crate::time::Millis;

/// What is read of a lane: batches numbered `from` to before `to`, as far as they arrived at or after `since`.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub lane: usize,
    pub from: u64,
    pub to: u64,
    pub since: Millis,
}

/// A batch with its lane and its number there.
pub type Numbered = (usize, u64, RawBatch);

/// Of the lanes' next batches the one that arrived first; within a lane in its order.
pub struct Merged<'j> {
    lanes: Vec<Lane<'j>>,
}

struct Lane<'j> {
    part: Part,
    head: (u64, RawBatch),
    batches: Batches<'j>,
}

impl Lane<'_> {
    fn next(batches: &mut Batches<'_>, part: &Part) -> Result<Option<(u64, RawBatch)>, JournalError> {
        Ok(batches.next().transpose()?.filter(|(number, _)| *number < part.to))
    }
}

impl Journal {
    pub fn merged(&self, parts: impl IntoIterator<Item = Part>) -> Result<Merged<'_>, JournalError> {
        let mut lanes = Vec::new();
        for part in parts {
            let mut batches = self.read(part.lane, part.from).arriving(part.since);
            if let Some(head) = Lane::next(&mut batches, &part)? {
                lanes.push(Lane { part, head, batches });
            }
        }
        Ok(Merged { lanes })
    }
}

impl Merged<'_> {
    fn step(&mut self) -> Result<Option<Numbered>, JournalError> {
        let Some(at) = (0..self.lanes.len()).min_by_key(|at| self.lanes[*at].head.1.arrival) else { return Ok(None) };
        let Lane { part, head, batches } = &mut self.lanes[at];
        let lane = part.lane;
        let (number, batch) = match Lane::next(batches, part)? {
            Some(following) => std::mem::replace(head, following),
            None => self.lanes.swap_remove(at).head,
        };
        Ok(Some((lane, number, batch)))
    }
}

impl Iterator for Merged<'_> {
    type Item = Result<Numbered, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.lanes.clear();
        }
        step.transpose()
    }
}
