//! Raw events of a topic: each host sends those of the partitions that it counts, a block of one partition at a time.
//!
//! Rows and token of a block depend on its partition and offsets alone, whoever sends it.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

use super::folder::JUDGED_LINES_MAX;
use super::judging::Judging;
use super::places::Places;
use super::rows::Reading;
use super::{BLOCK_BYTES, Sending};
use crate::engine::delta::{SourceId, Uncounted};
use crate::ingest::kafka::reread::{Piece, Reread};
use crate::store::redis::{RawPlace, RawPlaces};
use crate::store::{Position, StoreError};

pub struct FromTopic {
    pub places: Places,
    reader: Mutex<Reader>,
}

struct Reader {
    topic: Reread,
    /// The partition that was read last: the others have their turn first.
    last: SourceId,
}

impl FromTopic {
    pub fn new(places: Places, topic: Reread) -> Self {
        Self { places, reader: Mutex::new(Reader { topic, last: SourceId::MAX }) }
    }

    /// Sends a block of the partition whose turn it is, and goes on while blocks are full: few and large ones are what
    /// ClickHouse likes. One of each partition when the host ends, besides those that were begun before.
    pub fn send_all(&self, sending: &Sending, covered: &[Position]) -> Result<(), StoreError> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |place: &RawPlace| !place.unsure && (place.noted.is_some() || place.sent < place.covered);
        let mut last = false;
        loop {
            let mut all = self.places.all(covered)?;
            if all.places.iter().any(|place| place.unsure) {
                self.make_sure(sending, &mut reader, &all)?;
                all = self.places.all(covered)?;
            }
            if sending.is_time_to_look(all.places.iter().any(waits))
                && self.look_for_lost(sending, &mut reader, &all)?
            {
                all = self.places.all(covered)?;
            }
            let mut waiting: Vec<RawPlace> = all.places.into_iter().filter(waits).collect();
            let turn = waiting.partition_point(|place| place.source <= reader.last);
            if turn < waiting.len() {
                waiting.rotate_left(turn);
            }
            let mut any_full = false;
            for place in &waiting {
                let full = self.send(sending, &mut reader, place)?;
                any_full |= full;
                if !full && !sending.ending.load(Relaxed) {
                    return Ok(());
                }
            }
            let ending = sending.ending.load(Relaxed);
            let more = if ending { !last && waiting.iter().any(|place| place.noted.is_some()) } else { any_full };
            if !more {
                return Ok(());
            }
            last = ending;
        }
    }

    /// True: the block was full, and more waits.
    fn send(&self, sending: &Sending, reader: &mut Reader, place: &RawPlace) -> Result<bool, StoreError> {
        let RawPlace { source, sent: from, noted, covered, .. } = *place;
        reader.last = source;
        let (to, bytes_max) = noted.map_or((covered, BLOCK_BYTES), |to| (to, usize::MAX));
        let piece = reader.topic.read(source, from, to, bytes_max).map_err(StoreError::Unavailable)?;
        let to = piece.to;
        if noted.is_none() && !self.places.note(source, from, to)? {
            return Ok(false);
        }
        let Some(uncounted) = self.places.uncounted(source, from, to)? else { return Ok(false) };
        let plan = sending.active.load().definitions.plan.clone();
        let mut reading = Reading::new(&plan, sending.event_bytes_max, &sending.origin);
        reading.add(source, from, &piece.batch, &uncounted);
        sending.clickhouse.append(&[(source, from, to)], &reading.events)?;
        self.places.arrived(source, from, to, reading.events.last_positions().last().map(|(_, last)| *last))?;
        sending.telemetry.clickhouse.raw_events.inc_by(reading.events.count() as u64);
        note_lost(sending, source, &piece);
        Ok(piece.batch.len >= BLOCK_BYTES && to < covered)
    }

    /// What ClickHouse has lost is sent again, as far as the topic reaches. True: there is some.
    fn look_for_lost(&self, sending: &Sending, reader: &mut Reader, all: &RawPlaces) -> Result<bool, StoreError> {
        let there = sending.clickhouse.last_positions(&sending.origin)?;
        let next = |source: &SourceId| there.get(source).map_or(0, |(position, _)| position + 1);
        let is_lost = |place: &&RawPlace| !place.unsure && place.last.is_some_and(|last| next(&place.source) <= last);
        let mut any = false;
        for place in all.places.iter().filter(is_lost) {
            let source = place.source;
            tracing::warn!(partition = source, "ClickHouse has lost raw events: they are sent again from the topic");
            let first = reader.topic.first(source).map_err(StoreError::Unavailable)?.min(place.sent);
            let (from, lines) = judge(sending, reader, source, first..place.sent, next(&source).max(first))?;
            any |= self.places.again(place, from, &lines)?;
            sending.telemetry.clickhouse.raw_again.inc();
        }
        Ok(any)
    }

    /// The state was begun anew, or is another one than it was: what has arrived is not sent again, however the blocks were cut.
    fn make_sure(&self, sending: &Sending, reader: &mut Reader, all: &RawPlaces) -> Result<(), StoreError> {
        let arrived = sending.clickhouse.last_positions(&sending.origin)?;
        let mut next = Vec::new();
        for place in all.places.iter().filter(|place| place.unsure) {
            let source = place.source;
            if place.gap {
                tracing::warn!(
                    partition = source,
                    "hosts without ClickHouse have counted: raw events of that time are not there"
                );
            }
            let from = match arrived.get(&source) {
                Some(&(position, arrival)) => {
                    if !reader.topic.is_same(source, position, arrival).map_err(StoreError::Unavailable)? {
                        return Err(StoreError::Engine(format!(
                            "ClickHouse has raw events of another topic `{}`: its message {position} of partition {source} is not ours; give another database",
                            sending.origin
                        )));
                    }
                    position + 1
                }
                // Counting began with what the topic had then.
                None if place.sent == 0 => reader.topic.first(source).map_err(StoreError::Unavailable)?,
                None => 0,
            };
            next.push((source, from, arrived.get(&source).map(|(position, _)| *position)));
        }
        self.places.reached(&all.life, &next)
    }
}

/// Lines of a piece of a partition that were not counted.
type Judged = (Range<u64>, Vec<Uncounted>);

/// What is not to be sent from `from` on, of what the partition has in `range`, and where that begins: where too many lines were
/// not counted, the oldest events are left out.
fn judge(
    sending: &Sending,
    reader: &mut Reader,
    source: SourceId,
    range: Range<u64>,
    mut from: u64,
) -> Result<(u64, Vec<Judged>), StoreError> {
    let plan = sending.active.load().definitions.plan.clone();
    let mut judging = Judging::new(&plan, sending.event_bytes_max);
    let (mut at, mut all, mut count) = (range.start, Vec::new(), 0);
    while at < range.end {
        let piece = reader.topic.read(source, at, range.end, BLOCK_BYTES).map_err(StoreError::Unavailable)?;
        let mut lines = judging.uncounted(source, at, &piece.batch);
        lines.retain(|line| line.1 >= from);
        count += lines.len();
        all.push((at..piece.to, lines));
        at = piece.to;
        if count > JUDGED_LINES_MAX {
            tracing::warn!(
                partition = source,
                before = at,
                "too many lines were not counted: events before are left out"
            );
            (from, count) = (at, 0);
            all.clear();
        }
    }
    Ok((from.min(range.end), all))
}

fn note_lost(sending: &Sending, partition: SourceId, piece: &Piece) {
    if piece.lost > 0 {
        tracing::error!(
            partition,
            messages = piece.lost,
            "the topic's retention took messages before their raw events were written"
        );
        sending.telemetry.clickhouse.raw_lost.inc_by(piece.lost);
        sending.lost.fetch_add(piece.lost, Relaxed);
    }
}
