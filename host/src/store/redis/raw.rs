//! Raw events on their way to where people ask for them: up to where those of each source were sent, the block that is being
//! sent, and which lines of the log are not among them. Knows positions; not what is sent, nor where it goes.
//!
//! Lines that were not counted come with the delta that did not count them, in the same step (`lua/commit.lua`), and go when
//! the block that leaves them out has arrived. A block is noted before it is sent, by the owner of its source alone; who comes
//! after it sends the same block again. After Redis began again nobody is sure until somebody has asked what has arrived.

use std::ops::Range;
use std::sync::{MutexGuard, PoisonError};

use redis::Value;

use super::RedisStore;
use super::link::{Function, Link, unexpected};
use super::pack::Pack;
use super::value::{self, Answer};
use crate::engine::delta::{GROUP_ALL, SourceId, SourceRange, Uncounted};
use crate::store::StoreError;

/// Where the raw events of a source stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawPlace {
    pub source: SourceId,
    pub sent: u64,
    /// Where the block ends that is being sent.
    pub noted: Option<u64>,
    /// Where the last event stood that has arrived; `None`: that is not known.
    pub last: Option<u64>,
    /// Up to where the state has counted.
    pub covered: u64,
    /// What has arrived is to be asked for first.
    pub unsure: bool,
    /// Hosts that send no raw events have counted before it: those are not there.
    pub gap: bool,
}

#[derive(Clone, Debug, Default)]
pub struct RawPlaces {
    /// Which life of Redis this is of.
    pub life: String,
    pub places: Vec<RawPlace>,
}

impl RedisStore {
    /// Of the sources that are this host's, as far as anything of them was counted.
    pub fn raw_places(&self) -> Result<RawPlaces, StoreError> {
        let epochs = self.lock_writer().epochs.clone();
        let mut packed = Pack::default();
        packed.array(epochs.len());
        for (source, epoch) in &epochs {
            packed.array(2).bytes(source.to_string()).bytes(epoch.to_string());
        }
        let answer = Answer::of(self.lock_raw().call(Function::Raw, &[b"places", &packed.0])?)?;
        let Some((life, places)) = answer.rest().split_first() else { return Err(answer.unexpected()) };
        let life = value::text(life)?.to_owned();
        let place = |place: &Value| {
            let [source, sent, noted, covered, sure, last] = value::list(place)? else { return Err(unexpected(place)) };
            let known = |value: &Value| (*value != none()).then(|| value::number(value)).transpose();
            let sure = value::text(sure)?;
            Ok(RawPlace {
                source: value::number(source)?,
                sent: value::number(sent)?,
                noted: known(noted)?,
                last: known(last)?,
                covered: value::number(covered)?,
                unsure: sure != life,
                gap: sure == "left",
            })
        };
        let mut places = places.iter().map(place).collect::<Result<Vec<_>, StoreError>>()?;
        places.sort_unstable_by_key(|place| place.source);
        Ok(RawPlaces { life, places })
    }

    /// A block is about to be sent. False: the place is another one by now, or another host's.
    pub fn note_raw(&self, source: SourceId, from: u64, to: u64) -> Result<bool, StoreError> {
        self.raw(&["note", &source.to_string(), &self.epoch(source), &from.to_string(), &to.to_string()])
            .map(|answer| answer.is_some())
    }

    /// Lines of the noted block that were not counted, ascending; `None`: it is no longer the noted one.
    pub fn uncounted(&self, source: SourceId, from: u64, to: u64) -> Result<Option<Vec<(u64, u32)>>, StoreError> {
        let answer = self.raw(&["lines", &source.to_string(), &from.to_string(), &to.to_string()])?;
        let Some(answer) = answer else { return Ok(None) };
        let mut lines = Vec::new();
        for kept in answer.rest() {
            for kept in value::list(kept)? {
                decode(value::bytes(kept)?, &mut lines).ok_or_else(|| unexpected(kept))?;
            }
        }
        lines.retain(|(position, _)| (from..to).contains(position));
        lines.sort_unstable();
        Ok(Some(lines))
    }

    /// The noted block has arrived. `last`: where its last event stood, if it had one.
    pub fn raw_arrived(&self, source: SourceId, from: u64, to: u64, last: Option<u64>) -> Result<(), StoreError> {
        self.raw(&["sent", &source.to_string(), &from.to_string(), &to.to_string(), &text(last)]).map(drop)
    }

    /// All before `next` has arrived, as was asked in this life of Redis; `last`: where the last event stood.
    pub fn raw_reached(&self, life: &str, source: SourceId, next: u64, last: Option<u64>) -> Result<(), StoreError> {
        let (id, epoch) = (source.to_string(), self.epoch(source));
        self.raw(&["reached", &id, &epoch, life, &next.to_string(), &text(last)]).map(drop)
    }

    /// What had arrived is gone. Of these lines of the source, in `range`, it is known again that they were not counted; they
    /// are kept until `raw_again`.
    pub fn keep_again(&self, source: SourceId, range: Range<u64>, lines: &[Uncounted]) -> Result<bool, StoreError> {
        if lines.is_empty() {
            return Ok(true);
        }
        let (id, epoch, to) = (source.to_string(), self.epoch(source), range.end.to_string());
        let arguments = [b"keep", id.as_bytes(), epoch.as_bytes(), to.as_bytes(), &encode(range.start, lines)];
        self.raw_bytes(&arguments).map(|answer| answer.is_some())
    }

    /// Sending begins again at `from`. False: the place is no longer as it was asked for, or another host's.
    pub fn raw_again(&self, source: SourceId, sent: u64, from: u64) -> Result<bool, StoreError> {
        let answer =
            self.raw(&["again", &source.to_string(), &self.epoch(source), &sent.to_string(), &from.to_string()]);
        answer.map(|answer| answer.is_some())
    }

    fn raw(&self, arguments: &[&str]) -> Result<Option<Answer>, StoreError> {
        let arguments: Vec<&[u8]> = arguments.iter().map(|it| it.as_bytes()).collect();
        self.raw_bytes(&arguments)
    }

    fn raw_bytes(&self, arguments: &[&[u8]]) -> Result<Option<Answer>, StoreError> {
        let answer = Answer::of(self.lock_raw().call(Function::Raw, arguments)?)?;
        match answer.word() {
            b"ok" => Ok(Some(answer)),
            b"moved" => Ok(None),
            _ => Err(answer.unexpected()),
        }
    }

    fn epoch(&self, source: SourceId) -> String {
        self.lock_writer().epochs.get(&source).copied().unwrap_or(0).to_string()
    }

    fn lock_raw(&self) -> MutexGuard<'_, Link> {
        self.raw.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As `lua/raw.lua` reads it.
fn text(position: Option<u64>) -> String {
    position.map_or_else(|| "-".into(), |position| position.to_string())
}

fn none() -> Value {
    Value::BulkString(b"-".to_vec())
}

/// For `lua/commit.lua`: of each source that has some.
pub fn pack(sources: &[SourceRange], lines: &[Uncounted]) -> Vec<u8> {
    let mut lines = lines.to_vec();
    lines.sort_unstable();
    let mut all = Vec::new();
    for range in sources.iter().filter(|range| range.group == GROUP_ALL) {
        let at = |position: u64| lines.partition_point(|line| *line < (range.source, position, 0));
        let of_range = &lines[at(range.from)..at(range.to)];
        if !of_range.is_empty() {
            all.push((range.source, encode(range.from, of_range)));
        }
    }
    let mut packed = Pack::default();
    packed.array(all.len());
    for (source, encoded) in all {
        packed.array(2).bytes(source.to_string()).bytes(encoded);
    }
    packed.0
}

/// Where they begin to count, then of each line the step of its position and its byte, in groups of seven bits.
fn encode(from: u64, lines: &[Uncounted]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + lines.len() * 3);
    let (mut put, mut last) = (|number: u64| put(&mut bytes, number), from);
    put(from);
    for (_, position, start) in lines {
        put(position - last);
        put(u64::from(*start));
        last = *position;
    }
    bytes
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// `None`: the bytes are no such thing.
fn decode(mut bytes: &[u8], lines: &mut Vec<(u64, u32)>) -> Option<()> {
    let mut position = take(&mut bytes)?;
    while !bytes.is_empty() {
        position = position.checked_add(take(&mut bytes)?)?;
        lines.push((position, u32::try_from(take(&mut bytes)?).ok()?));
    }
    Some(())
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back() {
        let lines = [(1, 5, 0), (1, 5, 300), (1, 6, 899_999), (1, 1 << 50, 7)];
        let bytes = encode(5, &lines);
        let mut read = Vec::new();
        decode(&bytes, &mut read).unwrap();
        assert_eq!(read, lines.map(|(_, position, start)| (position, start)));
        // What ends within a line is none.
        assert_eq!(decode(&bytes[..bytes.len() - 1], &mut Vec::new()), None);
        assert_eq!(decode(&[0xff; 20], &mut Vec::new()), None);
    }
}
