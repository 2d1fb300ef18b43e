//! What other programs read with Redis's own commands (docs/redis.md): minutes as hashes of text, sums as sorted sets, uniques as
//! Redis's own HyperLogLog strings. Derived from the mirror and written absolutely, each with the change it is of: repeats
//! and hosts that lag behind overwrite nothing newer.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::hll;
use super::link::{Function, Link};
use super::pack::Pack;
use super::value::{self, Answer};
use crate::engine::plan::{Fingerprint, StateKind};
use crate::store::memory::{MemoryStore, MetricShape};
use crate::store::{ReadRequest, Resolution, Seq, StateColumn, StateReader as _, StateSeries, StoreError};
use crate::time::{Minute, SECOND_MS};

/// Seconds after its last change that a minute can be read.
pub const KEPT_S: i64 = 26 * 3600;
/// Values of a dimension that are written for a minute.
const VALUES_MAX: usize = 1_000;
/// Panes written in one go; the others come with the next.
const PANES_AT_ONCE: usize = 240;
/// Redis is held no longer than it takes to store so much.
const CALL_BYTES_MAX: usize = 256 << 10;
/// Lua passes only so many arguments.
const FIELDS_EACH: usize = 500;

/// What is known to be written.
#[derive(Default)]
pub struct Readable {
    token: String,
    /// All changes up to this one are looked at.
    seq: Seq,
    written: HashMap<(Fingerprint, Minute), Seq>,
}

/// One command for Redis.
type Command = Vec<Vec<u8>>;

impl Readable {
    /// Writes what changed since the last time. How many panes that were.
    pub fn write(
        &mut self,
        link: &mut Link,
        memory: &MemoryStore,
        shapes: &BTreeMap<Fingerprint, Arc<MetricShape>>,
    ) -> Result<usize, StoreError> {
        link.ready()?;
        if self.token != link.token() {
            *self = Self { token: link.token().to_owned(), seq: 0, written: written(link, shapes)? };
        }
        let due = memory.panes_since(self.seq);
        let all = due.len() <= PANES_AT_ONCE;
        let due = &due[..due.len().min(PANES_AT_ONCE)];
        let last = due.last().map_or(self.seq, |(seq, ..)| *seq);
        let mut minutes: BTreeMap<Fingerprint, Vec<(Minute, Seq)>> = BTreeMap::new();
        for &(seq, fingerprint, minute) in due {
            if self.written.get(&(fingerprint, minute)).is_none_or(|&written| written < seq) {
                minutes.entry(fingerprint).or_default().push((minute, seq));
            }
        }
        let mut count = 0;
        for (fingerprint, mut minutes) in minutes {
            // Of summaries nobody else can read anything.
            let has_numbers = |shape: &&Arc<MetricShape>| shape.kinds.iter().any(|kind| !kind.is_summary());
            let Some(shape) = shapes.get(&fingerprint).filter(has_numbers) else { continue };
            minutes.sort_unstable();
            for (minute, seq, commands) in commands(link, memory, fingerprint, shape, &minutes)? {
                send(link, &self.token, fingerprint, minute, seq, commands)?;
                self.written.insert((fingerprint, minute), seq);
                count += 1;
            }
        }
        // Of panes with the same change some may be left.
        self.seq = if all { last } else { last.saturating_sub(1) };
        if let Some((_, newest)) = self.written.keys().max_by_key(|(_, minute)| *minute).copied() {
            let oldest = Minute(newest.0.saturating_sub((KEPT_S / 60) as u32));
            self.written.retain(|(_, minute), _| *minute >= oldest);
        }
        Ok(count)
    }
}

/// What is written as a whole already.
fn written(
    link: &mut Link,
    shapes: &BTreeMap<Fingerprint, Arc<MetricShape>>,
) -> Result<HashMap<(Fingerprint, Minute), Seq>, StoreError> {
    let mut written = HashMap::new();
    for &fingerprint in shapes.keys() {
        let stored = link.query(redis::cmd("HGETALL").arg(link.key(&["readable", &fingerprint.to_string()])))?;
        for (minute, version) in value::pairs(&stored)? {
            if let Some(seq) = value::text(version)?.strip_suffix('+').and_then(|seq| seq.parse().ok()) {
                written.insert((fingerprint, Minute(value::number(minute)?)), seq);
            }
        }
    }
    Ok(written)
}

/// Sends the commands of a pane in calls that are short enough.
fn send(
    link: &mut Link,
    token: &str,
    fingerprint: Fingerprint,
    minute: Minute,
    seq: Seq,
    commands: Vec<Command>,
) -> Result<(), StoreError> {
    let mut calls: Vec<(usize, Pack)> = Vec::new();
    for command in &commands {
        let mut packed = Pack::default();
        packed.array(command.len());
        for argument in command {
            packed.bytes(argument);
        }
        match calls.last_mut() {
            Some((count, call)) if call.0.len() + packed.0.len() <= CALL_BYTES_MAX => {
                *count += 1;
                call.0.extend(packed.0);
            }
            _ => calls.push((1, packed)),
        }
    }
    let (fingerprint, minute, seq) = (fingerprint.to_string(), minute.0.to_string(), seq.to_string());
    let last = calls.len();
    for (at, (count, call)) in calls.into_iter().enumerate() {
        let mut packed = Pack::default();
        packed.array(count);
        packed.0.extend(call.0);
        let more = if at + 1 == last { "last" } else { "more" };
        let texts = [token, &fingerprint, &minute, &seq, more].map(str::as_bytes);
        Answer::of(link.call(Function::Readable, &[&texts[..], &[&packed.0]].concat())?)?;
    }
    Ok(())
}

/// For each minute what is to be written.
fn commands(
    link: &Link,
    memory: &MemoryStore,
    fingerprint: Fingerprint,
    shape: &MetricShape,
    minutes: &[(Minute, Seq)],
) -> Result<Vec<(Minute, Seq, Vec<Command>)>, StoreError> {
    let one = |minute: Minute| -> Range<Minute> { minute..Minute(minute.0 + 1) };
    let read = |by: Vec<usize>| {
        memory.read(&ReadRequest {
            fingerprints: vec![fingerprint],
            kinds: shape.kinds.clone(),
            margins: shape.margins,
            dimensions: shape.dimensions.len(),
            by,
            filters: vec![],
            resolution: Resolution::Minute,
            ranges: minutes.iter().map(|(minute, _)| one(*minute)).collect(),
        })
    };
    let total = read(vec![])?;
    let singles: Vec<_> = (0..shape.dimensions.len()).map(|at| read(vec![at])).collect::<Result<_, _>>()?;
    let mut written = Vec::new();
    for (step, &(minute, seq)) in minutes.iter().enumerate() {
        let mut fields: Vec<(String, &StateSeries)> = Vec::new();
        fields.extend(total.series.first().filter(|series| series.present[step]).map(|it| ("total".to_owned(), it)));
        for (dimension, answer) in shape.dimensions.iter().zip(&singles) {
            let present = answer.series.iter().filter(|series| series.present[step]).take(VALUES_MAX);
            fields.extend(present.map(|series| (format!("{dimension}={}", series.labels[0]), series)));
        }
        written.push((minute, seq, of_minute(link, shape, minute, step, &fields)));
    }
    Ok(written)
}

fn of_minute(
    link: &Link,
    shape: &MetricShape,
    minute: Minute,
    step: usize,
    fields: &[(String, &StateSeries)],
) -> Vec<Command> {
    let at = (minute.start() / SECOND_MS).to_string();
    let mut commands = Vec::new();
    for (slot, name) in slot_names(&shape.kinds).iter().enumerate() {
        if shape.kinds[slot].is_summary() {
            continue;
        }
        if shape.kinds[slot] == StateKind::Uniq {
            for (field, series) in fields {
                let StateColumn::Uniq(states) = &series.states[slot] else { continue };
                let Some(sketch) = &states[step] else { continue };
                let key = match field.as_str() {
                    "total" => link.key(&[name, &shape.name, &at]),
                    field => link.key(&[name, &shape.name, &at, field]),
                };
                let (string, kept) = (hll::encode(sketch), KEPT_S.to_string());
                commands.push(vec![b"SET".to_vec(), key.into(), string, b"EX".to_vec(), kept.into()]);
            }
            continue;
        }
        let values: Vec<(&str, String)> = fields
            .iter()
            .filter_map(|(field, series)| Some((field.as_str(), text(&series.states[slot], step)?)))
            .collect();
        let key = link.key(&["minute", &shape.name, name, &at]);
        for values in values.chunks(FIELDS_EACH) {
            let mut command: Command = vec![b"HSET".to_vec(), key.clone().into()];
            command.extend(values.iter().flat_map(|(field, value)| [field.as_bytes().to_vec(), value.clone().into()]));
            commands.push(command);
        }
        commands.push(vec![b"EXPIRE".to_vec(), key.into(), KEPT_S.to_string().into()]);
        if let (StateKind::Sum, Some((_, sum))) =
            (shape.kinds[slot], values.iter().find(|(field, _)| *field == "total"))
        {
            commands.extend(series(&link.key(&["series", &shape.name, name]), minute, sum));
        }
    }
    commands
}

/// The minute's place in the sorted set of a sum: one member a minute, `seconds:value`.
fn series(key: &str, minute: Minute, sum: &str) -> [Command; 4] {
    let seconds = minute.start() / SECOND_MS;
    let (at, old) = (seconds.to_string(), (seconds - KEPT_S).to_string());
    let command = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect();
    [
        command(&["ZREMRANGEBYSCORE", key, &at, &at]),
        command(&["ZREMRANGEBYSCORE", key, "-inf", &old]),
        command(&["ZADD", key, &at, &format!("{at}:{sum}")]),
        command(&["EXPIRE", key, &KEPT_S.to_string()]),
    ]
}

/// `count`, `sum`, …; the second of a kind is `sum2`.
fn slot_names(kinds: &[StateKind]) -> Vec<String> {
    let name = |kind: StateKind| match kind {
        StateKind::Count => "count",
        StateKind::Sum => "sum",
        StateKind::Min => "min",
        StateKind::Max => "max",
        StateKind::Uniq => "uniq",
        StateKind::Quantile => "quantile",
        StateKind::Top => "top",
        StateKind::Funnel => "funnel",
    };
    let numbered = |(slot, &kind): (usize, &StateKind)| {
        let before = kinds[..slot].iter().filter(|&&other| other == kind).count();
        if before == 0 { name(kind).to_owned() } else { format!("{}{}", name(kind), before + 1) }
    };
    kinds.iter().enumerate().map(numbered).collect()
}

/// A number as others read it; `None` where no number was seen.
fn text(column: &StateColumn, step: usize) -> Option<String> {
    match column {
        StateColumn::Count(states) => Some(states[step].to_string()),
        StateColumn::Sum(states) | StateColumn::Min(states) | StateColumn::Max(states) => {
            Some(states[step]).filter(|value| value.is_finite()).map(|value| value.to_string())
        }
        StateColumn::Uniq(_) | StateColumn::Summary(_) => None,
    }
}
