//! Bringing a delta in, exactly once: placed, cut into parts, staged, committed in one step, merged part by part.
//!
//! 1. *Place*: Redis decides the numbers (`place`). Repeats change nothing.
//! 2. *Stage*: the parts go under a name of their own. Nobody reads them; left alone they expire.
//! 3. *Commit* (`lua/commit.lua`): one step checks the life of Redis, owner, positions and floor, moves the parts to the end of
//!    the queue and advances the positions. Refused, nothing has changed.
//! 4. *Merge* (`lua/merge.lua`): any host takes the next part off the queue and merges it, both in one step of a few milliseconds.
//!
//! A host that dies before 3 has done nothing, one that dies after it has done all: the others merge the rest. When the answer
//! to 3 is lost, the stage is deleted, which makes it final, and the positions say which it was.

use std::collections::{BTreeMap, HashMap, VecDeque};

use redis::Value;

use super::link::{Function, Link};
use super::pack::Pack;
use super::parts::{parts, row_kinds};
use super::place::Places;
use super::raw;
use super::shape;
use super::translate::{Translated, translate};
use super::value::{self, Answer};
use crate::engine::delta::{Delta, SourceId, Uncounted};
use crate::store::{Position, Seq, StoreError};
use crate::time::{Millis, Minute};

/// Deltas that wait for Redis to answer. Whoever brings more is better off not to cut any.
pub const WAITING_DELTAS_MAX: usize = 4;
/// A staged delta that nobody commits is gone after this.
const STAGE_EXPIRES_S: u64 = 600;
/// Bytes staged in one go.
const STAGED_BYTES_AT_ONCE: usize = 4 << 20;
/// Redis may begin again, the floor may rise, a stage may expire while a delta is on its way.
const TRIES: u32 = 5;

/// The writing side of a store.
pub struct Writer {
    pub link: Link,
    pub places: Places,
    /// The epoch under which each source was taken over.
    pub epochs: HashMap<SourceId, u64>,
    pub waiting: VecDeque<Waiting>,
    /// Cells that came for minutes that Redis no longer has.
    pub dropped_cells: u64,
    /// Combinations that a limit did not keep, once a delta, metric and day.
    pub over: u64,
}

/// A delta on its way.
pub struct Waiting {
    delta: Delta,
    /// Lines of it that were not counted; `None`: this host sends no raw events.
    uncounted: Option<Vec<Uncounted>>,
    /// Under what name it was sent to be committed, without an answer.
    sent_as: Option<String>,
}

impl Waiting {
    pub fn new(delta: Delta, uncounted: Option<Vec<Uncounted>>) -> Self {
        Self { delta, uncounted, sent_as: None }
    }
}

/// What a commit has come to.
enum Committed {
    As(Seq),
    /// Minutes before this one are no longer whole in Redis.
    Floor(Minute),
    /// The stage has expired.
    Gone,
}

/// What others are told of a delta: metrics and minutes.
pub type Touched = BTreeMap<String, Vec<u32>>;

impl Writer {
    /// Brings in what waits, in its order. What Redis does not answer to goes on waiting; what it refuses is dropped, and all
    /// behind it, which begins where the refused would have ended.
    pub fn deliver(&mut self) -> Result<Option<(Seq, Touched)>, StoreError> {
        let mut last = None;
        while let Some(mut waiting) = self.waiting.pop_front() {
            match self.bring(&mut waiting) {
                Ok(done) => last = Some(done),
                Err(error @ StoreError::Unavailable(_)) => {
                    self.waiting.push_front(waiting);
                    return Err(error);
                }
                Err(error) => {
                    self.waiting.clear();
                    return Err(error);
                }
            }
        }
        Ok(last)
    }

    fn bring(&mut self, waiting: &mut Waiting) -> Result<(Seq, Touched), StoreError> {
        let mut floor = Minute(0);
        let mut last = StoreError::Restarted;
        for _ in 0..TRIES {
            match self.try_to_bring(waiting, floor) {
                Ok((Committed::As(seq), touched)) => return Ok((seq, touched)),
                Ok((Committed::Floor(minute), _)) => floor = minute,
                Ok((Committed::Gone, _)) => {}
                Err(StoreError::Restarted) => {
                    self.places.forget();
                    self.link.disconnect();
                }
                Err(error) => {
                    // Found out by deleting what was sent; a name that nobody answered to stays for the next try.
                    last = error;
                    if !matches!(last, StoreError::Unavailable(_)) || waiting.sent_as.is_none() {
                        return Err(last);
                    }
                    if let Err(error @ StoreError::Unavailable(_)) = self.link.ready().map(drop) {
                        return Err(error);
                    }
                }
            }
        }
        Err(last)
    }

    fn try_to_bring(&mut self, waiting: &mut Waiting, floor: Minute) -> Result<(Committed, Touched), StoreError> {
        self.link.ready()?;
        if let Some(seq) = self.was_committed(waiting)? {
            return Ok((Committed::As(seq), Touched::new()));
        }
        self.places.of(self.link.token());
        let mut translated = translate(&mut self.link, &mut self.places, &mut waiting.delta)?;
        let dropped = translated.drop_before(floor) as u64;
        let parts = parts(&translated);
        let stage = format!("{:016x}", rand::random::<u64>());
        self.stage(&stage, &parts)?;
        waiting.sent_as = Some(stage.clone());
        let committed = self.commit(&stage, parts.len(), &translated, waiting)?;
        waiting.sent_as = None;
        if matches!(committed, Committed::As(_)) {
            self.dropped_cells += dropped;
            self.over += translated.over;
            if dropped > 0 {
                tracing::warn!(cells = dropped, "what came for minutes that are no longer kept was left out");
            }
        }
        let minutes = |panes: &super::translate::MetricPanes| panes.panes.keys().map(|minute| minute.0).collect();
        let touched = translated.metrics.iter().map(|panes| (panes.fingerprint.to_string(), minutes(panes)));
        Ok((committed, touched.collect()))
    }

    /// After this, what was sent before is either committed, or will never be.
    fn was_committed(&mut self, waiting: &mut Waiting) -> Result<Option<Seq>, StoreError> {
        let Some(stage) = &waiting.sent_as else { return Ok(None) };
        let answer = Answer::of(self.link.call(Function::Cancel, &[stage.as_bytes()])?)?;
        let committed = answer.number(0)?;
        let stored: HashMap<_, _> =
            positions(&mut self.link)?.into_iter().map(|at| ((at.group, at.source), at.next)).collect();
        waiting.sent_as = None;
        let mut sources = waiting.delta.sources.iter().filter(|range| range.from < range.to).peekable();
        let any = sources.peek().is_some();
        let all = sources.all(|range| stored.get(&(range.group, range.source)) == Some(&range.to));
        Ok((any && all).then_some(committed))
    }

    fn stage(&mut self, stage: &str, parts: &[Vec<u8>]) -> Result<(), StoreError> {
        let key = self.link.key(&["stage", stage]);
        let mut pipeline = redis::pipe();
        let mut bytes = 0;
        for part in parts {
            if bytes > 0 && bytes + part.len() > STAGED_BYTES_AT_ONCE {
                self.link.pipe(&std::mem::take(&mut pipeline))?;
                bytes = 0;
            }
            bytes += part.len();
            pipeline.cmd("RPUSH").arg(&key).arg(part.as_slice()).cmd("EXPIRE").arg(&key).arg(STAGE_EXPIRES_S);
        }
        self.link.pipe(&pipeline).map(drop)
    }

    fn commit(
        &mut self,
        stage: &str,
        parts: usize,
        translated: &Translated,
        waiting: &Waiting,
    ) -> Result<Committed, StoreError> {
        let sources = &waiting.delta.sources;
        let mut packed = Pack::default();
        packed.array(sources.len());
        for range in sources {
            let epoch = self.epochs.get(&range.source).copied().unwrap_or(0);
            packed.array(6).bytes(range.group.to_string()).bytes(range.source.to_string());
            packed.bytes(range.from.to_string()).bytes(range.to.to_string()).bytes(range.arrival.to_string());
            packed.bytes(epoch.to_string());
        }
        let mut metrics = Pack::default();
        metrics.array(translated.metrics.len());
        for metric in &translated.metrics {
            let kinds = metric.shape.kinds.iter().map(|&kind| kind as u8).collect::<Vec<_>>();
            metrics.array(3).bytes(metric.fingerprint.to_string());
            metrics.bytes(format!("{} {kinds:?}", row_kinds(&metric.shape.kinds)));
            metrics.bytes(shape::encode(&metric.shape)?);
        }
        let (token, count, earliest) =
            (self.places.token().to_owned(), parts.to_string(), translated.earliest().0.to_string());
        let uncounted = waiting.uncounted.as_ref().map(|lines| raw::pack(sources, lines)).unwrap_or_default();
        let (token, stage, count) = (token.as_bytes(), stage.as_bytes(), count.as_bytes());
        let arguments = [token, stage, count, &packed.0, &metrics.0, earliest.as_bytes(), &uncounted];
        let answer = Answer::of(self.link.call(Function::Commit, &arguments)?)?;
        let source_of = |id: SourceId| sources.iter().find(|range| range.source == id);
        match answer.word() {
            b"ok" => Ok(Committed::As(answer.number(0)?)),
            b"floor" => Ok(Committed::Floor(Minute(answer.number(0)?))),
            b"gone" => Ok(Committed::Gone),
            b"fenced" => {
                let source_id = answer.number(0)?;
                let epoch = self.epochs.get(&source_id).copied().unwrap_or(0);
                // Epochs only grow: this one is of another life of Redis, and all is to be begun again.
                if answer.number::<u64>(1)? < epoch {
                    return Err(StoreError::Restarted);
                }
                Err(StoreError::Fenced { source_id, epoch, stored: answer.number(1)? })
            }
            b"position" => {
                let source_id = answer.number(1)?;
                let from = source_of(source_id).map_or(0, |range| range.from);
                Err(StoreError::Position { group: answer.number(0)?, source_id, stored: answer.number(2)?, from })
            }
            b"shape" => Err(StoreError::Corrupt(format!(
                "metric {} is kept with other kinds of state",
                value::text(answer.rest().first().unwrap_or(&Value::Nil))?
            ))),
            _ => Err(answer.unexpected()),
        }
    }
}

/// Merges what is committed, whoever committed it.
pub fn merge_all(link: &mut Link) -> Result<(), StoreError> {
    while value::number::<u64>(&link.call(Function::Merge, &[])?)? > 0 {}
    Ok(())
}

pub fn positions(link: &mut Link) -> Result<Vec<Position>, StoreError> {
    let stored = link.query(redis::cmd("HGETALL").arg(link.key(&["positions"])))?;
    let position = |(at, stored): (&Value, &Value)| {
        let malformed = || super::link::unexpected(at);
        let (group, source) = value::text(at)?.split_once(':').ok_or_else(malformed)?;
        let (next, arrival) = value::text(stored)?.split_once(' ').ok_or_else(malformed)?;
        let arrival: Millis = arrival.parse().map_err(|_| malformed())?;
        Ok(Position {
            group: group.parse().map_err(|_| malformed())?,
            source: source.parse().map_err(|_| malformed())?,
            next: next.parse().map_err(|_| malformed())?,
            arrival,
        })
    };
    let mut positions = value::pairs(&stored)?.map(position).collect::<Result<Vec<_>, StoreError>>()?;
    positions.sort_unstable_by_key(|at| (at.group, at.source));
    Ok(positions)
}
