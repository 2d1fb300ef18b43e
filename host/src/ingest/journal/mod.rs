//! The host's own log: batches are durable here before they are acknowledged, and can be read again from any position.
//!
//! A fixed number of lanes, each an append-only series of segments of checksummed frames. A position is the number of a
//! frame in its lane. Does not know what events mean, who reads them or what was counted.

mod frame;
mod lane;
mod merged;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub use frame::{Frame, FrameError};
pub use lane::Recovery;
use lane::{Lane, Segment};
pub use merged::{Merged, Part};
use segment::{Found, SegmentReader};

use super::RawBatch;
use crate::time::Millis;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalSettings {
    pub lanes: usize,
    /// A segment that has as much is followed by a new one.
    pub segment_bytes: u64,
    /// Retention: the oldest segments go when all together have more, or are older.
    pub bytes_max: u64,
    pub age_max_ms: Millis,
}

impl Default for JournalSettings {
    fn default() -> Self {
        Self { lanes: 16, segment_bytes: 64 << 20, bytes_max: 8 << 30, age_max_ms: 3 * crate::time::DAY_MS }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("the journal's lane {lane}: {source}")]
    Io { lane: usize, source: io::Error },
    #[error("the journal's lane {lane} takes nothing more since a write to disk failed; restart to read what is there")]
    Failed { lane: usize },
    #[error("the journal in {} has {found} lanes, not {wanted}", .folder.display())]
    Lanes { folder: PathBuf, found: usize, wanted: usize },
}

pub struct Journal {
    settings: JournalSettings,
    lanes: Vec<Lane>,
    recovery: Recovery,
    /// Frames that readers had to pass over.
    lost_frames: AtomicU64,
}

impl Journal {
    /// Opens what is there, or begins. A torn tail, which a crash leaves, is cut off.
    pub fn open(folder: &Path, settings: JournalSettings) -> Result<Self, JournalError> {
        let lane_folder = |lane: usize| folder.join(format!("lane-{lane:02}"));
        let found = (0..).take_while(|&lane| lane_folder(lane).is_dir()).count();
        if found > settings.lanes {
            return Err(JournalError::Lanes { folder: folder.to_owned(), found, wanted: settings.lanes });
        }
        let mut lanes = Vec::with_capacity(settings.lanes);
        let mut recovery = Recovery::default();
        for number in 0..settings.lanes {
            let (lane, found) = Lane::open(number, lane_folder(number), settings.segment_bytes)?;
            recovery.torn_bytes += found.torn_bytes;
            recovery.lost_frames += found.lost_frames;
            lanes.push(lane);
        }
        Ok(Self { settings, lanes, recovery, lost_frames: AtomicU64::new(0) })
    }

    /// What opening had to cut off or pass over.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Takes the batch and gives it its number. Durable after the next `sync` of the lane. An error leaves the lane as it was.
    pub fn append(&self, lane: usize, frame: Frame) -> Result<u64, JournalError> {
        self.lanes[lane].append(frame)
    }

    /// Everything appended to these lanes before the call is durable after it.
    pub fn sync(&self, lanes: &[usize]) -> Result<(), JournalError> {
        lanes.iter().try_for_each(|&lane| self.lanes[lane].sync())
    }

    /// The number that the next batch gets.
    pub fn next(&self, lane: usize) -> u64 {
        self.lanes[lane].next()
    }

    /// The oldest number that may still be there.
    pub fn first(&self, lane: usize) -> u64 {
        self.lanes[lane].segments().first().map_or(0, |segment| segment.first)
    }

    /// The first number of the segment that holds the first batch that arrived at or after `since`, or before it.
    pub fn first_arriving(&self, lane: usize, since: Millis) -> u64 {
        let segments = self.lanes[lane].segments();
        let reaches = segments.iter().find(|segment| segment.newest.is_none_or(|newest| newest >= since));
        reaches.map_or_else(|| self.next(lane), |segment| segment.first)
    }

    pub fn bytes(&self) -> u64 {
        self.lanes.iter().flat_map(Lane::segments).map(|segment| segment.bytes).sum()
    }

    /// Removes the oldest segments past the limits of age and size, but none that holds `keep_from` (by lane) or what is
    /// behind it. The bytes removed.
    pub fn expire(&self, now: Millis, keep_from: &[u64]) -> Result<u64, JournalError> {
        let before = now.saturating_sub(self.settings.age_max_ms);
        let mut total = 0;
        let mut removable = Vec::new();
        for (number, (lane, &keep)) in self.lanes.iter().zip(keep_from).enumerate() {
            lane.roll_if_older(before)?;
            let segments = lane.segments();
            total += segments.iter().map(|segment| segment.bytes).sum::<u64>();
            let over = segments.windows(2).take_while(|pair| pair[1].first <= keep);
            // Within a lane in its order, whatever arrival times senders of old events claim.
            let mut newest = Millis::MIN;
            removable.extend(over.map(|pair| {
                newest = newest.max(pair[0].newest.unwrap_or(Millis::MIN));
                (newest, pair[1].first, number, pair[0].bytes)
            }));
        }
        removable.sort_unstable();
        let mut removed = 0;
        for (newest, next, lane, bytes) in removable {
            if newest < before || total - removed > self.settings.bytes_max {
                self.lanes[lane].remove_before(next)?;
                removed += bytes;
            }
        }
        Ok(removed)
    }

    /// Frames that readers passed over because they were damaged.
    pub fn lost_frames(&self) -> u64 {
        self.lost_frames.load(Relaxed)
    }

    /// The batches of a lane from number `from` on, up to the last one appended before the call. Damage is passed over and counted.
    pub fn read(&self, lane: usize, from: u64) -> Batches<'_> {
        let segments = self.lanes[lane].segments();
        // The last segment that begins at or before it holds it.
        let skip = segments.partition_point(|segment| segment.first <= from).saturating_sub(1);
        Batches {
            journal: self,
            lane,
            expected: from,
            since: Millis::MIN,
            segments: segments.into_iter().skip(skip).collect(),
            reader: None,
        }
    }
}

/// Batches of one lane with their numbers, ascending.
pub struct Batches<'j> {
    journal: &'j Journal,
    lane: usize,
    /// Numbers below are passed over.
    expected: u64,
    /// Batches that arrived before are passed over.
    since: Millis,
    segments: VecDeque<Segment>,
    reader: Option<SegmentReader>,
}

impl Batches<'_> {
    /// Only those that arrived at or after `since`; the others are not even decompressed.
    pub fn arriving(mut self, since: Millis) -> Self {
        self.since = since;
        self
    }

    fn step(&mut self) -> io::Result<Option<(u64, RawBatch)>> {
        loop {
            let Some(reader) = &mut self.reader else {
                let Some(segment) = self.segments.pop_front() else { return Ok(None) };
                let path = self.journal.lanes[self.lane].path_of(&segment);
                self.reader = Some(SegmentReader::open(&path, Some(segment.bytes))?);
                continue;
            };
            let (expected, since) = (self.expected, self.since);
            match reader.next(|header| header.sequence >= expected && header.arrival >= since)? {
                Found::Frame(header) => {
                    // With batches passed over, a gap says nothing.
                    let lost = if since == Millis::MIN { header.sequence - expected } else { 0 };
                    self.expected = header.sequence + 1;
                    let batch = header.batch(reader.rest());
                    self.journal.count_lost(self.lane, lost + u64::from(batch.is_none()), header.sequence);
                    if let Some(batch) = batch {
                        return Ok(Some((header.sequence, batch)));
                    }
                }
                Found::Damage if reader.skip_damage()? => {}
                // Nothing more can be read here; how much is lost shows with the next segment's number.
                Found::Damage | Found::End => self.end_segment(),
            }
        }
    }

    fn end_segment(&mut self) {
        self.reader = None;
        let until = self.segments.front().map_or(self.expected, |next| next.first);
        if self.since == Millis::MIN {
            self.journal.count_lost(self.lane, until.saturating_sub(self.expected), until);
        }
        self.expected = self.expected.max(until);
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<(u64, RawBatch), JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.segments.clear();
            self.reader = None;
        }
        step.map_err(|source| JournalError::Io { lane: self.lane, source }).transpose()
    }
}

impl Journal {
    fn count_lost(&self, lane: usize, lost: u64, before: u64) {
        if lost > 0 {
            self.lost_frames.fetch_add(lost, Relaxed);
            tracing::error!(lane, lost, before, "the journal is damaged: batches are lost");
        }
    }
}
