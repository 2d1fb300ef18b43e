//! What the log holds from before: the journal's batches, or the messages of a topic; several sources side by side, about in the
//! order in which they arrived. Says what the log has lost; does not know what is filled with it.

use std::ops::Range;
use std::sync::Arc;

use super::Failure;
use crate::engine::delta::SourceId;
use crate::ingest::Step;
use crate::ingest::journal::{Journal, Part};
use crate::ingest::kafka::KafkaSettings;
use crate::ingest::kafka::merged::Merged;
use crate::ingest::kafka::reread::Reread;
use crate::time::{Clock, MINUTE_MS, Millis};

/// Partitions may be out of order by this part of the time for which ids are remembered, and by no more than a minute.
const SLACK_OF_SPAN: Millis = 20;

/// Where it is read when there is something to fill.
pub enum Origin {
    Journal(Arc<Journal>),
    Topic(Box<KafkaSettings>, Clock),
}

pub enum Past {
    Journal(Arc<Journal>),
    Topic { reread: Box<Reread>, slack_ms: Millis },
}

pub type Steps<'p> = Box<dyn Iterator<Item = Result<Step, Failure>> + 'p>;

impl Origin {
    /// `span_ms`: how long ids are remembered.
    pub fn open(&self, span_ms: Millis) -> Result<Past, Failure> {
        Ok(match self {
            Self::Journal(journal) => Past::Journal(journal.clone()),
            Self::Topic(settings, clock) => {
                let reread = Reread::connect_for_turns(settings, clock.clone()).map_err(|error| error.to_string())?;
                let slack_ms = (span_ms / SLACK_OF_SPAN).min(MINUTE_MS);
                Past::Topic { reread: Box::new(reread), slack_ms }
            }
        })
    }
}

impl Past {
    /// These parts of their sources.
    pub fn read(&mut self, parts: &[(SourceId, Range<u64>)]) -> Result<Steps<'_>, Failure> {
        match self {
            Self::Journal(journal) => {
                let lost: Vec<Step> = parts.iter().filter_map(|part| lost_before(journal, part)).collect();
                let part = |(source, range): &(SourceId, Range<u64>)| {
                    let lane = *source as usize;
                    Part { lane, from: range.start.max(journal.first(lane)), to: range.end, since: Millis::MIN }
                };
                let steps = steps(journal, parts.iter().map(part))?;
                Ok(Box::new(lost.into_iter().map(Ok).chain(steps)))
            }
            Self::Topic { reread, slack_ms } => {
                Ok(Box::new(Merged::new(&mut **reread, parts, *slack_ms).map(|step| step.map_err(Failure::from))))
            }
        }
    }

    /// Of each source what lies before a position and arrived no earlier than given.
    pub fn before(&mut self, parts: &[(SourceId, u64, Millis)]) -> Result<Steps<'_>, Failure> {
        match self {
            Self::Journal(journal) => {
                let part = |&(source, to, since): &(SourceId, u64, Millis)| {
                    let lane = source as usize;
                    Part { lane, from: journal.first_arriving(lane, since), to, since }
                };
                Ok(Box::new(steps(journal, parts.iter().map(part))?))
            }
            Self::Topic { reread, .. } => {
                let asked: Vec<_> = parts.iter().map(|(source, _, since)| (*source, *since)).collect();
                let from = reread.first_arriving(&asked)?;
                let part = |(source, to, _): &(SourceId, u64, Millis)| Some((*source, *from.get(source)?..*to));
                let parts: Vec<_> = parts.iter().filter_map(part).collect();
                self.read(&parts)
            }
        }
    }
}

fn steps<'j>(
    journal: &'j Journal,
    parts: impl Iterator<Item = Part>,
) -> Result<impl Iterator<Item = Result<Step, Failure>> + 'j, Failure> {
    let batches = journal.merged(parts)?;
    Ok(batches.map(|next| {
        let (lane, number, batch) = next?;
        Ok(Step::Batch { source: lane as SourceId, to: number + 1, batch })
    }))
}

/// Where the journal begins behind the part's beginning.
fn lost_before(journal: &Journal, (source, range): &(SourceId, Range<u64>)) -> Option<Step> {
    let lane = *source as usize;
    let first = journal.first(lane);
    (range.start < range.end && range.start < first).then(|| {
        let batch = journal.read(lane, first).next().and_then(Result::ok);
        Step::Lost { first: batch.map(|(_, batch)| batch.arrival) }
    })
}
