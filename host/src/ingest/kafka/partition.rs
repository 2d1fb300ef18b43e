//! One partition as the consumer holds it: how far it was read, and the batch that is being made of its messages.

use crate::engine::decode::PADDING_BYTES;
use crate::engine::delta::SourceId;
use crate::engine::messages::Messages;
use crate::ingest::kafka::Given;
use crate::ingest::kafka::message::Lines;
use crate::ingest::{Client, RawBatch};
use crate::time::Millis;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not where the state is: what comes is passed over until it was located.
    Astray,
    /// Messages before `until` were counted: their ids are remembered.
    Ids {
        until: u64,
    },
    /// Waits for other partitions' ids.
    Held,
    Counting,
}

pub struct Partition {
    pub number: SourceId,
    pub stage: Stage,
    pub generation: u64,
    /// What was given ends here; the next batch begins here.
    next: u64,
    /// What was read ends here.
    pub end: u64,
    /// The partition's end when it was located; all before it was acknowledged earlier.
    pub target: u64,
    /// Was read to its end since it was located.
    pub at_end: bool,
    /// Of the newest message that was read.
    arrival: Millis,
    /// No event will come any more that arrived before this.
    pub floor: Millis,
    bytes: Vec<u8>,
    messages: Messages,
}

impl Partition {
    pub fn astray(number: SourceId, floor: Millis) -> Self {
        Self {
            number,
            stage: Stage::Astray,
            generation: 0,
            next: 0,
            end: 0,
            target: 0,
            at_end: false,
            arrival: 0,
            floor,
            bytes: Vec::new(),
            messages: Messages::default(),
        }
    }

    /// Goes on at `next`; reads from `from`, which is before it where ids are to be remembered.
    pub fn locate(&mut self, from: u64, next: u64, target: u64, arrival: Millis, generation: u64) {
        self.stage = if from < next { Stage::Ids { until: next } } else { Stage::Counting };
        (self.next, self.end) = (if from < next { from } else { next }, from);
        (self.target, self.at_end) = (target, false);
        self.arrival = arrival;
        self.floor = self.floor.max(arrival);
        self.generation = generation;
        self.bytes.clear();
        self.messages = Messages::default();
    }

    /// The ids are all read.
    pub fn hold(&mut self, next: u64) {
        self.stage = Stage::Held;
        (self.next, self.end) = (next, self.end.max(next));
    }

    pub fn is_caught_up(&self) -> bool {
        self.stage == Stage::Counting && (self.at_end || self.end >= self.target)
    }

    pub fn add(&mut self, lines: &Lines<'_>) {
        self.bytes.extend_from_slice(&lines.value);
        self.bytes.push(b'\n');
        self.messages.push(self.bytes.len(), lines.offset, lines.arrival, lines.address, lines.user_agent);
        self.read(lines.offset, lines.arrival);
    }

    /// A message of which nothing is counted.
    pub fn read(&mut self, offset: u64, arrival: Millis) {
        self.end = offset + 1;
        self.arrival = self.arrival.max(arrival);
    }

    pub fn buffered_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Of the newest message that was given.
    pub fn arrival(&self) -> Millis {
        self.arrival
    }

    /// What was read since the last call, for those who count.
    pub fn take(&mut self) -> Option<Given> {
        if self.end <= self.next || matches!(self.stage, Stage::Astray | Stage::Held) {
            return None;
        }
        let room = self.bytes.capacity();
        let mut bytes = std::mem::take(&mut self.bytes);
        let len = bytes.len();
        bytes.resize(len + PADDING_BYTES, 0);
        self.bytes.reserve(room.min(2 * len + PADDING_BYTES));
        let messages = Some(std::mem::take(&mut self.messages));
        let batch = RawBatch { bytes, len, zstd: None, arrival: self.arrival, client: Client::default(), messages };
        let (from, to) = (self.next, self.end);
        self.next = self.end;
        let ids_only = matches!(self.stage, Stage::Ids { .. });
        Some(Given { partition: self.number, from, to, batch, ids_only, generation: self.generation })
    }
}
