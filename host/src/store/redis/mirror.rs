//! A copy of the hot state in this host's memory, which answers its queries. Refreshed by what changed since its change number;
//! begun anew where Redis began again. Knows when to read what; how a pane is read is `read`'s.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use redis::Value;

use super::apply::merge_all;
use super::link::{Function, Link, unexpected};
use super::pack::texts;
use super::read::{Wanted, read_panes};
use super::shape;
use super::value::{self, Answer};
use crate::engine::plan::Fingerprint;
use crate::store::memory::{Changes, Counted, MemoryStore, MetricShape, Numbers};
use crate::store::{Seq, StoreError};
use crate::time::Minute;

/// Other hosts may change panes while they are read: they are read again, so often.
const ROUNDS_MAX: u32 = 3;
/// Values read in one go.
const SCAN_COUNT: u32 = 1_000;

pub struct Mirror {
    pub link: Link,
    pub store: Arc<MemoryStore>,
    /// Which life of Redis it is of; empty: of none.
    token: String,
    seq: Seq,
    /// Older minutes are no longer whole in Redis.
    pub complete_from: Minute,
    numbers: HashMap<(Fingerprint, u32), Numbers>,
    /// Of all metrics that were met.
    pub shapes: BTreeMap<Fingerprint, Arc<MetricShape>>,
}

/// What changed after a change number, as Redis says.
struct Changed {
    head: Changes,
    minutes: BTreeMap<(Fingerprint, Minute), (Seq, Arc<MetricShape>)>,
    /// By day and dimension.
    values: BTreeSet<(u32, Arc<str>)>,
}

impl Mirror {
    pub fn new(link: Link) -> Self {
        let (numbers, shapes) = (HashMap::new(), BTreeMap::new());
        let (token, complete_from) = (String::new(), Minute::default());
        Self { link, store: Arc::default(), token, seq: 0, complete_from, numbers, shapes }
    }

    /// Merges what is committed and reads what has changed. True: it was begun anew.
    pub fn sync(&mut self) -> Result<bool, StoreError> {
        self.link.ready()?;
        merge_all(&mut self.link)?;
        match self.follow() {
            // Once: it began again between two calls.
            Err(StoreError::Restarted) => {
                self.link.disconnect();
                self.link.ready()?;
                self.follow()
            }
            outcome => outcome,
        }
    }

    fn follow(&mut self) -> Result<bool, StoreError> {
        let token = self.link.token().to_owned();
        if self.token == token {
            let store = self.store.clone();
            let changes = self.read(&store, &token, self.seq)?;
            (self.seq, self.complete_from) = (changes.seq, changes.complete_from);
            store.put_changes(changes);
            return Ok(false);
        }
        // What was there answers until all that is now has been read.
        self.token.clear();
        self.numbers.clear();
        let fresh = MemoryStore::new();
        let changes = self.read(&fresh, &token, 0)?;
        (self.seq, self.complete_from) = (changes.seq, changes.complete_from);
        fresh.put_changes(changes);
        self.store.replace_by(fresh);
        self.token = token;
        Ok(true)
    }

    fn read(&mut self, store: &MemoryStore, token: &str, since: Seq) -> Result<Changes, StoreError> {
        let mut changed = self.changed(token, since)?;
        let mut panes = BTreeMap::new();
        let mut counts = BTreeMap::new();
        for round in 1.. {
            self.read_combinations(store, &changed)?;
            self.shapes
                .extend(changed.minutes.iter().map(|((fingerprint, _), (_, shape))| (*fingerprint, shape.clone())));
            let mut wanted = Vec::with_capacity(changed.minutes.len());
            for (&(fingerprint, minute), (_, shape)) in &changed.minutes {
                let numbers = self.numbers.get(&(fingerprint, minute.day())).copied().unwrap_or_default();
                wanted.push(Wanted { fingerprint, minute, kinds: &shape.kinds, numbers });
            }
            let read = read_panes(&mut self.link, &wanted)?;
            for ((at, (seq, _)), pane) in changed.minutes.iter().zip(read) {
                panes.insert(*at, (*seq, pane));
            }
            for (day, dimension) in std::mem::take(&mut changed.values) {
                let counted = self.read_values(&dimension, day)?;
                counts.insert((dimension, day), counted);
            }
            let since = self.changed(token, changed.head.seq)?;
            if since.minutes.is_empty() && since.values.is_empty() || round == ROUNDS_MAX {
                break;
            }
            changed = since;
        }
        let panes = panes.into_iter().map(|((fingerprint, minute), (seq, pane))| (fingerprint, minute, seq, pane));
        let counts = counts.into_iter().map(|((dimension, day), counted)| (dimension, day, counted));
        Ok(Changes { panes: panes.collect(), counts: counts.collect(), ..changed.head })
    }

    fn changed(&mut self, token: &str, since: Seq) -> Result<Changed, StoreError> {
        let since = since.to_string();
        let answer = Answer::of(self.link.call(Function::Changes, &[token.as_bytes(), since.as_bytes()])?)?;
        let head = Changes {
            seq: answer.number(0)?,
            closed: Minute(answer.number(1)?),
            complete_from: Minute(answer.number(2)?),
            forgotten: answer.number(3)?,
            ..Changes::default()
        };
        let [.., metrics, values] = answer.rest() else { return Err(answer.unexpected()) };
        let mut changed = Changed { head, minutes: BTreeMap::new(), values: BTreeSet::new() };
        for metric in value::list(metrics)? {
            let [fingerprint, shape, minutes] = value::list(metric)? else { return Err(unexpected(metric)) };
            let fingerprint = value::fingerprint(fingerprint)?;
            let shape = Arc::new(shape::decode(value::bytes(shape)?)?);
            for (minute, seq) in value::pairs(minutes)? {
                let minute = Minute(value::number(minute)?);
                changed.minutes.insert((fingerprint, minute), (value::number(seq)?, shape.clone()));
            }
        }
        for (name, _) in value::pairs(values)? {
            let (day, dimension) = value::text(name)?.split_once(':').ok_or_else(|| unexpected(name))?;
            changed.values.insert((day.parse().map_err(|_| unexpected(name))?, dimension.into()));
        }
        Ok(changed)
    }

    /// What the numbers in these panes mean.
    fn read_combinations(&mut self, store: &MemoryStore, changed: &Changed) -> Result<(), StoreError> {
        let days: BTreeMap<(Fingerprint, u32), &Arc<MetricShape>> =
            changed.minutes.iter().map(|(&(at, minute), (_, shape))| ((at, minute.day()), shape)).collect();
        let mut pipeline = redis::pipe();
        for (fingerprint, day) in days.keys() {
            let known = self.numbers.get(&(*fingerprint, *day)).map_or(0, |numbers| numbers.full);
            let list = self.link.key(&["list", &format!("{fingerprint}:{day}")]);
            pipeline.cmd("LRANGE").arg(list).arg(known).arg(-1);
        }
        let lists = self.link.pipe(&pipeline)?;
        for ((&(fingerprint, day), shape), list) in days.iter().zip(&lists) {
            let combination = |packed| texts(value::bytes(packed)?).ok_or_else(|| unexpected(packed));
            let combinations: Vec<Vec<&str>> =
                value::list(list)?.iter().map(combination).collect::<Result<_, StoreError>>()?;
            let numbers = store.put_combinations(fingerprint, shape, day, &combinations)?;
            self.numbers.insert((fingerprint, day), numbers);
        }
        Ok(())
    }

    fn read_values(&mut self, dimension: &str, day: u32) -> Result<Counted, StoreError> {
        let key = self.link.key(&["values", dimension, &day.to_string()]);
        // A scan may give a value twice.
        let (mut counted, mut cursor) = (BTreeMap::new(), "0".to_owned());
        loop {
            let scanned = self.link.query(redis::cmd("HSCAN").arg(&key).arg(&cursor).arg("COUNT").arg(SCAN_COUNT))?;
            let [next, values] = value::list(&scanned)? else { return Err(unexpected(&Value::Nil)) };
            for (text, events) in value::pairs(values)? {
                counted.insert(Arc::from(value::text(text)?), value::number(events)?);
            }
            if value::text(next)? == "0" {
                return Ok(counted.into_iter().collect());
            }
            cursor = value::text(next)?.to_owned();
        }
    }
}
