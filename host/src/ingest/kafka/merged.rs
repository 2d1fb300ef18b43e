//! Parts of several partitions read once more side by side, about in the order in which their messages arrived. Knows neither ids
//! nor events; what retention took in between is said where it is missed.

use std::ops::Range;

use super::reread::{Piece, Reread};
use crate::engine::decode::PADDING_BYTES;
use crate::engine::delta::SourceId;
use crate::engine::messages::Messages;
use crate::ingest::{RawBatch, Step};
use crate::time::Millis;

/// Of all partitions together, read and not yet handed on.
const HELD_BYTES_MAX: usize = 16 << 20;
/// Of one partition: to read another one costs a question to Kafka.
const PIECE_BYTES_MAX: usize = 512 << 10;
const PIECE_BYTES_MIN: usize = 64 << 10;
/// Handed on at once, but for one message that has more: whoever takes it stops between two of these.
const STEP_BYTES_MAX: usize = 64 << 10;

/// Who reads messages of one partition.
pub trait Pieces {
    /// As `Reread::read`.
    fn read(&mut self, partition: SourceId, from: u64, to: u64, bytes_max: usize) -> Result<Piece, String>;
}

impl Pieces for Reread {
    fn read(&mut self, partition: SourceId, from: u64, to: u64, bytes_max: usize) -> Result<Piece, String> {
        Self::read(self, partition, from, to, bytes_max)
    }
}

/// Of the partitions' next messages those that arrived first, and what follows them in their partition; within one in its order.
pub struct Merged<'r, R> {
    reader: &'r mut R,
    lanes: Vec<Lane>,
    bytes_max: usize,
    /// By so much messages of different partitions may be out of order.
    slack_ms: Millis,
}

struct Lane {
    partition: SourceId,
    /// What is still to be read.
    left: Range<u64>,
    held: Option<Held>,
    /// Messages before the next one are gone.
    lost: bool,
}

/// A piece of which messages from `next` on are not handed on yet.
struct Held {
    batch: RawBatch,
    messages: Messages,
    next: u32,
    to: u64,
}

impl<'r, R: Pieces> Merged<'r, R> {
    pub fn new(reader: &'r mut R, parts: &[(SourceId, Range<u64>)], slack_ms: Millis) -> Self {
        let parts = parts.iter().filter(|(_, range)| !range.is_empty());
        let lane = |(partition, left): &(SourceId, Range<u64>)| Lane {
            partition: *partition,
            left: left.clone(),
            held: None,
            lost: false,
        };
        let lanes: Vec<Lane> = parts.map(lane).collect();
        let bytes_max = (HELD_BYTES_MAX / lanes.len().max(1)).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX);
        Self { reader, lanes, bytes_max, slack_ms }
    }

    fn step(&mut self) -> Result<Option<Step>, String> {
        for lane in &mut self.lanes {
            lane.read(self.reader, self.bytes_max)?;
        }
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.lost) {
            lane.lost = false;
            return Ok(Some(Step::Lost { first: lane.held.as_ref().map(Held::arrival) }));
        }
        self.lanes.retain(|lane| lane.held.is_some());
        let arrival = |at: &usize| self.lanes[*at].held.as_ref().map_or(Millis::MAX, Held::arrival);
        let Some(at) = (0..self.lanes.len()).min_by_key(arrival) else { return Ok(None) };
        let others = (0..self.lanes.len()).filter(|other| *other != at).map(|other| arrival(&other));
        let until = others.min().unwrap_or(Millis::MAX).saturating_add(self.slack_ms);
        let lane = &mut self.lanes[at];
        let Some(held) = &mut lane.held else { return Ok(None) };
        let (batch, to) = held.take(until);
        if held.next as usize == held.messages.len() {
            lane.held = None;
        }
        Ok(Some(Step::Batch { source: lane.partition, to, batch }))
    }
}

impl<R: Pieces> Iterator for Merged<'_, R> {
    type Item = Result<Step, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.lanes.clear();
        }
        step.transpose()
    }
}

impl Lane {
    /// Holds messages, if there are any left.
    fn read(&mut self, reader: &mut impl Pieces, bytes_max: usize) -> Result<(), String> {
        while self.held.is_none() && !self.left.is_empty() {
            let mut piece = reader.read(self.partition, self.left.start, self.left.end, bytes_max)?;
            self.left.start = piece.to;
            self.lost |= piece.lost > 0;
            let messages = piece.batch.messages.take().unwrap_or_default();
            self.held = (!messages.is_empty()).then_some(Held { batch: piece.batch, messages, next: 0, to: piece.to });
        }
        Ok(())
    }
}

impl Held {
    /// Of the next message.
    fn arrival(&self) -> Millis {
        self.messages.get(self.next).arrival
    }

    /// The next message and those behind it that arrived by then, and where their partition goes on.
    fn take(&mut self, until: Millis) -> (RawBatch, u64) {
        let (first, all) = (self.next, self.messages.len() as u32);
        let start = self.messages.start(first) as usize;
        let waits = |at: &u32| {
            let message = self.messages.get(*at);
            message.arrival > until || message.end as usize - start > STEP_BYTES_MAX
        };
        let later = (first + 1..all).find(waits);
        self.next = later.unwrap_or(all);
        let to = later.map_or(self.to, |at| self.messages.get(at - 1).position + 1);
        let end = self.messages.get(self.next - 1).end as usize;
        let (mut bytes, mut messages) = (Vec::with_capacity(end - start + PADDING_BYTES), Messages::default());
        bytes.extend_from_slice(&self.batch.bytes[start..end]);
        bytes.resize(end - start + PADDING_BYTES, 0);
        for at in first..self.next {
            let message = self.messages.get(at);
            let (address, user_agent) = (self.messages.address(at), self.messages.user_agent(at));
            messages.push(message.end as usize - start, message.position, message.arrival, address, user_agent);
        }
        let arrival = messages.arrivals().map_or(0, |(_, newest)| newest);
        let (client, messages) = (self.batch.client.clone(), Some(messages));
        (RawBatch { bytes, len: end - start, zstd: None, arrival, client, messages }, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::Client;

    /// Of each partition where it begins, and its messages' positions and arrivals.
    struct Topic(Vec<(u64, Vec<(u64, Millis)>)>);

    impl Pieces for Topic {
        /// Two messages at most; without one a piece ends where the next would be, as behind a transaction.
        fn read(&mut self, partition: SourceId, from: u64, to: u64, _: usize) -> Result<Piece, String> {
            let (begins, messages) = &self.0[partition as usize];
            let first = (*begins).clamp(from, to);
            let (mut bytes, mut found, mut end) = (Vec::new(), Messages::default(), to);
            let there = messages.iter().filter(|(position, _)| (first..to).contains(position));
            for (taken, (position, arrival)) in there.enumerate() {
                if taken == 2 {
                    end = *position;
                    break;
                }
                bytes.extend_from_slice(format!("{{\"at\":{position}}}\n").as_bytes());
                found.push(bytes.len(), *position, *arrival, Some("::1"), None);
            }
            let len = bytes.len();
            bytes.resize(len + PADDING_BYTES, 0);
            let batch =
                RawBatch { bytes, len, zstd: None, arrival: 0, client: Client::default(), messages: Some(found) };
            Ok(Piece { batch, to: end, lost: first - from })
        }
    }

    /// Each step as text: partition, its messages with their arrivals, where it goes on.
    fn told(topic: Vec<(u64, Vec<(u64, Millis)>)>, parts: &[(SourceId, Range<u64>)], slack_ms: Millis) -> Vec<String> {
        let mut topic = Topic(topic);
        let tell = |step: Result<Step, String>| match step.unwrap() {
            Step::Lost { first } => format!("lost before {first:?}"),
            Step::Batch { source, to, batch } => {
                let messages = batch.messages.unwrap();
                let mut start = 0;
                let message = |at| {
                    let (message, address) = (messages.get(at), messages.address(at).unwrap());
                    let line = std::str::from_utf8(&batch.bytes[start..message.end as usize]).unwrap().trim();
                    assert_eq!((line, address), (format!("{{\"at\":{}}}", message.position).as_str(), "::1"));
                    start = message.end as usize;
                    format!("{}@{}", message.position, message.arrival)
                };
                let all: Vec<String> = (0..messages.len() as u32).map(message).collect();
                assert_eq!(batch.len + PADDING_BYTES, batch.bytes.len());
                format!("{source}: {} to {to}, newest {}", all.join(" "), batch.arrival)
            }
        };
        Merged::new(&mut topic, parts, slack_ms).map(tell).collect()
    }

    #[test]
    fn what_arrived_first_comes_first() {
        let a = (0, vec![(0, 10), (1, 20), (2, 30), (5, 60)]);
        let b = (0, vec![(0, 25), (1, 26), (3, 27)]);
        let steps = told(vec![a.clone(), b.clone()], &[(0, 0..9), (1, 0..4)], 0);
        let wanted = ["0: 0@10 1@20 to 2, newest 20", "1: 0@25 1@26 to 3, newest 26", "1: 3@27 to 4, newest 27"];
        assert_eq!(steps[..3], wanted);
        assert_eq!(steps[3..], ["0: 2@30 5@60 to 9, newest 60"]);
        // A piece is cut where the other partition comes first, but for the slack.
        let c = (0, vec![(0, 15)]);
        let cut = ["0: 0@10 to 1, newest 10", "1: 0@15 to 1, newest 15", "0: 1@20 to 2, newest 20"];
        assert_eq!(told(vec![a.clone(), c.clone()], &[(0, 0..2), (1, 0..1)], 0), cut);
        let whole = ["0: 0@10 1@20 to 2, newest 20", "1: 0@15 to 1, newest 15"];
        assert_eq!(told(vec![a, c], &[(0, 0..2), (1, 0..1)], 5), whole);
    }

    #[test]
    fn what_is_gone_is_said_where_it_is_missed() {
        let a = (4, vec![(4, 40), (5, 50)]);
        let nothing_left = (9, vec![]);
        let steps = told(vec![a, nothing_left], &[(0, 0..6), (1, 2..9)], 0);
        assert_eq!(steps, ["lost before Some(40)", "lost before None", "0: 4@40 5@50 to 6, newest 50"]);
        // Nothing was to be read of what is gone.
        assert!(told(vec![(9, vec![(9, 1)])], &[(0, 9..9)], 0).is_empty());
    }
}
