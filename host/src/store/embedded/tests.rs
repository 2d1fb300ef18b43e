//! The embedded store: the suites, with restarts, checkpoints and evictions in between; what a damaged or foreign folder says.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::engine::delta::{Delta, GROUP_ALL, SourceRange};
use crate::engine::plan::Fingerprint;
use crate::store::ledger::Change;
use crate::store::memory::MemoryStore;
use crate::store::reader::JoinedReader;
use crate::store::suite::{self, Folder, Model};
use crate::store::{Coverage, HistoryStore, HotStore, Position, ReadAnswer, ReadRequest, Resolution, Seq, StateReader};
use crate::time::Minute;

#[test]
fn is_a_history_store() {
    let folder = Folder::new("history");
    suite::history_store(&*Embedded::open(&folder.0).unwrap().history(), 1000);
}

/// A host's stores: after each apply something else happens to them.
struct Cycled {
    folder: Folder,
    open: RwLock<Option<Open>>,
    random: RwLock<StdRng>,
    /// Minutes from here on are never evicted.
    keep_from: u32,
}

struct Open {
    embedded: Embedded,
    hot: Arc<MemoryStore>,
}

impl Cycled {
    fn new(seed: u64, keep_from: u32) -> Self {
        let folder = Folder::new(&format!("cycled-{seed}"));
        let random = RwLock::new(StdRng::seed_from_u64(seed));
        let cycled = Self { folder, open: RwLock::new(None), random, keep_from };
        cycled.restart();
        cycled
    }

    fn restart(&self) {
        let mut open = self.open.write().unwrap();
        *open = None;
        let embedded = Embedded::open(&self.folder.0).unwrap();
        let hot = Arc::new(embedded.load().unwrap());
        *open = Some(Open { embedded, hot });
    }

    fn with<T>(&self, act: impl FnOnce(&Open) -> T) -> T {
        act(self.open.read().unwrap().as_ref().unwrap())
    }

    fn joined<T>(&self, act: impl FnOnce(&JoinedReader) -> T) -> T {
        self.with(|open| act(&JoinedReader::new(open.hot.clone(), Some(open.embedded.history()))))
    }

    fn live_on(&self) {
        let mut random = self.random.write().unwrap();
        let closed = random.random_range(self.keep_from - 200..self.keep_from + 100);
        let evicted = random.random_range(self.keep_from - 200..=self.keep_from);
        self.with(|open| {
            if random.random_bool(0.5) {
                open.hot.close_up_to(Minute(closed));
            }
            if random.random_bool(0.7) {
                open.embedded.checkpoint(&open.hot, None, &|| Ok(())).unwrap();
            }
            if random.random_bool(0.5) {
                open.hot.evict(Minute(evicted));
            }
            if random.random_bool(0.3) {
                open.embedded.checkpoint(&open.hot, None, &|| Ok(())).unwrap();
            }
        });
        if random.random_bool(0.4) {
            self.with(|open| open.embedded.checkpoint(&open.hot, None, &|| Ok(())).unwrap());
            self.restart();
        }
    }
}

impl HotStore for Cycled {
    fn positions(&self) -> Result<Vec<Position>, StoreError> {
        self.with(|open| open.hot.positions())
    }

    fn apply(&self, delta: Delta) -> Result<Seq, StoreError> {
        let seq = self.with(|open| open.hot.apply(delta))?;
        self.live_on();
        Ok(seq)
    }

    fn seq(&self) -> Seq {
        self.with(|open| HotStore::seq(&*open.hot))
    }

    fn changed_since(&self, fingerprints: &[Fingerprint], since: Seq) -> Result<Option<Vec<Minute>>, StoreError> {
        self.with(|open| HotStore::changed_since(&*open.hot, fingerprints, since))
    }
}

impl StateReader for Cycled {
    fn read(&self, request: &ReadRequest) -> Result<ReadAnswer, StoreError> {
        self.joined(|reader| reader.read(request))
    }

    fn seq(&self) -> Seq {
        HotStore::seq(self)
    }

    fn changed_since(&self, fingerprints: &[Fingerprint], since: Seq) -> Result<Option<Vec<Minute>>, StoreError> {
        HotStore::changed_since(self, fingerprints, since)
    }

    fn dimension_values(&self, dimension: &str, limit: usize) -> Result<Vec<(Arc<str>, u64)>, StoreError> {
        self.joined(|reader| reader.dimension_values(dimension, limit))
    }

    fn provisional_from(&self) -> Minute {
        self.joined(|reader| reader.provisional_from())
    }
}

#[test]
fn is_a_hot_store_over_restarts_and_evictions() {
    let seed = AtomicU64::new(0);
    // Days stay as long as one of their hours does, so that limits go on as if nothing had been evicted.
    let make = || Cycled::new(seed.fetch_add(1, Relaxed), 2 * 1440 - 60);
    suite::hot_store(make, 0..12, true);
}

/// Everything of every metric, by all its dimensions.
fn everything(reader: &impl StateReader, minutes: Range<u32>) -> Vec<String> {
    let plan = suite::plan_with_summaries();
    let ask = |metric| {
        let span = Minute(minutes.start)..Minute(minutes.end);
        let mut request = suite::request(&plan, metric, vec![span], Resolution::Minute);
        request.by = (0..request.dimensions).collect();
        format!("{:?}", suite::flatten(&reader.read(&request).unwrap()))
    };
    (0..plan.metrics.len()).map(ask).collect()
}

#[test]
fn what_was_loaded_is_what_was_saved_and_goes_on_the_same() {
    let plan = suite::plan_with_summaries();
    let minutes = 2 * 1440 - 70..2 * 1440 + 70;
    let folder = Folder::new("equal");
    let mut random = StdRng::seed_from_u64(7);
    let (reference, mut model) = (MemoryStore::new(), Model::default());
    let mut embedded = Embedded::open(&folder.0).unwrap();
    let mut hot = embedded.load().unwrap();
    for round in 0..10 {
        let events = suite::random_events(&mut random, minutes.clone());
        for store in [&reference, &hot] {
            store.apply(suite::delta(&plan, &model, &events)).unwrap();
        }
        model.apply(&plan, &events, round);
        embedded.checkpoint(&hot, None, &|| Ok(())).unwrap();
        drop((embedded, hot));
        embedded = Embedded::open(&folder.0).unwrap();
        hot = embedded.load().unwrap();
        assert_eq!(everything(&hot, minutes.clone()), everything(&reference, minutes.clone()));
        assert_eq!(hot.limits(), reference.limits());
        assert_eq!(hot.positions().unwrap(), reference.positions().unwrap());
        for dimension in ["d0", "d1", "d2"] {
            let values = |store: &MemoryStore| store.dimension_values(dimension, 100).unwrap();
            assert_eq!(values(&hot), values(&reference));
        }
        let nothing = embedded.checkpoint(&hot, None, &|| Ok(())).unwrap();
        assert_eq!((nothing.panes, nothing.history), (0, 0), "nothing changed since");
    }
}

#[test]
fn a_crash_between_history_and_checkpoint_counts_nothing_twice() {
    let plan = suite::plan_with_summaries();
    let minutes = 2 * 1440 - 70..2 * 1440 + 70;
    let folder = Folder::new("crash");
    let mut random = StdRng::seed_from_u64(11);
    let mut model = Model::default();
    let reference = MemoryStore::new();
    for round in 0..6 {
        let events = suite::random_events(&mut random, minutes.clone());
        for dies in [true, true, false] {
            let embedded = Embedded::open(&folder.0).unwrap();
            let hot = Arc::new(embedded.load().unwrap());
            // The log is cut into deltas otherwise each time: before a death into many more, with higher change numbers.
            let mut applied = model.clone();
            let cut = random.random_range(0..=events.len());
            let parts = if dies { events[..cut].chunks(1).collect() } else { vec![&events[..cut], &events[cut..]] };
            for part in parts {
                hot.apply(suite::delta(&plan, &applied, part)).unwrap();
                if !dies {
                    reference.apply(suite::delta(&plan, &applied, part)).unwrap();
                }
                applied.apply(&plan, part, round);
            }
            hot.close_up_to(Minute(2 * 1440));
            if dies {
                let snapshot = hot.snapshot();
                let due = snapshot.panes.iter().filter(|pane| pane.write);
                let minutes = due.map(|pane| pane.record(pane.encode().unwrap()));
                let hours = snapshot.hours.iter().map(|hour| hour.record().unwrap());
                embedded.history().write(&minutes.chain(hours).collect::<Vec<_>>()).unwrap();
                continue;
            }
            embedded.checkpoint(&hot, None, &|| Ok(())).unwrap();
            assert_eq!(hot.evict(Minute(2 * 1440)), Minute(2 * 1440));
            let joined = JoinedReader::new(hot.clone(), Some(embedded.history()));
            model = applied;
            let hour = |reader: &dyn StateReader| {
                let span = Minute(2 * 1440 - 120)..Minute(2 * 1440 + 120);
                suite::flatten(&reader.read(&suite::request(&plan, 4, vec![span], Resolution::Hour)).unwrap())
            };
            assert_eq!(hour(&joined), hour(&reference), "round {round}");
            assert_eq!(everything(&joined, minutes.clone()), everything(&reference, minutes.clone()), "round {round}");
        }
    }
}

#[test]
fn totals_stay_right_where_even_the_day_was_forgotten() {
    let plan = suite::plan_with_summaries();
    let folder = Folder::new("forgotten");
    let embedded = Embedded::open(&folder.0).unwrap();
    let hot = Arc::new(embedded.load().unwrap());
    let joined = JoinedReader::new(hot.clone(), Some(embedded.history()));
    let mut random = StdRng::seed_from_u64(3);
    let mut model = Model::default();
    for round in 0..10u32 {
        // Always the same two hours, long evicted from the second round on.
        let events = suite::random_events(&mut random, 1440..1560);
        hot.apply(suite::delta(&plan, &model, &events)).unwrap();
        model.apply(&plan, &events, u64::from(round));
        if round % 3 != 2 {
            hot.close_up_to(Minute(4 * 1440 + round));
            embedded.checkpoint(&hot, None, &|| Ok(())).unwrap();
            let before = hot.bytes();
            assert_eq!(hot.evict(Minute(3 * 1440)), Minute(3 * 1440));
            assert!(hot.bytes() < before);
        }
        for resolution in [Resolution::Minute, Resolution::Hour] {
            for metric in 0..plan.metrics.len() {
                // Unwritten corrections are in hot, hours of them in history only after the next checkpoint.
                let request = suite::request(&plan, metric, vec![Minute(1440)..Minute(1560)], resolution);
                let answer = joined.read(&request).unwrap();
                assert_eq!(suite::flatten(&answer), model.read(metric, &request), "round {round} {request:?}");
            }
        }
    }
}

#[test]
fn an_hour_is_not_dropped_before_history_has_it_too() {
    let plan = suite::plan_with_summaries();
    let folder = Folder::new("hour");
    let embedded = Embedded::open(&folder.0).unwrap();
    let hot = Arc::new(embedded.load().unwrap());
    let mut model = Model::default();
    let events = suite::random_events(&mut StdRng::seed_from_u64(9), 1440..1470);
    hot.apply(suite::delta(&plan, &model, &events)).unwrap();
    model.apply(&plan, &events, 1);
    hot.close_up_to(Minute(1470));
    embedded.checkpoint(&hot, None, &|| Ok(())).unwrap();
    hot.close_up_to(Minute(1600));
    assert_eq!(hot.evict(Minute(1500)), Minute(1440), "its minutes are in history, the hour is not");
    embedded.checkpoint(&hot, None, &|| Ok(())).unwrap();
    assert_eq!(hot.evict(Minute(1500)), Minute(1500));
    let joined = JoinedReader::new(hot, Some(embedded.history()));
    for metric in 0..plan.metrics.len() {
        let request = suite::request(&plan, metric, vec![Minute(1440)..Minute(1500)], Resolution::Hour);
        assert_eq!(suite::flatten(&joined.read(&request).unwrap()), model.read(metric, &request));
    }
}

#[test]
fn an_hour_stands_in_for_minutes_that_are_past_retention() {
    let plan = suite::plan_with_summaries();
    let folder = Folder::new("stand-in");
    let embedded = Embedded::open(&folder.0).unwrap();
    let hot = Arc::new(embedded.load().unwrap());
    let joined = JoinedReader::new(hot.clone(), Some(embedded.history()));
    let mut random = StdRng::seed_from_u64(5);
    let mut model = Model::default();
    for round in 0..3u32 {
        let events = suite::random_events(&mut random, 1440..1500);
        hot.apply(suite::delta(&plan, &model, &events)).unwrap();
        model.apply(&plan, &events, u64::from(round));
        hot.close_up_to(Minute(20 * 1440));
        embedded.checkpoint(&hot, None, &|| Ok(())).unwrap();
        hot.evict(Minute(20 * 1440));
        embedded.history().expire(Minute(20 * 1440).start()).unwrap();
        for metric in 0..plan.metrics.len() {
            let request = suite::request(&plan, metric, vec![Minute(1440)..Minute(1500)], Resolution::Hour);
            assert_eq!(suite::flatten(&joined.read(&request).unwrap()), model.read(metric, &request), "round {round}");
        }
    }
}

/// Pieces for a day that hot has forgotten, with evictions and restarts between them: as if nothing had been forgotten, limits included.
#[test]
fn a_gap_is_filled_in_history_each_piece_once() {
    const PIECES: u64 = 9;
    let plan = suite::plan_with_summaries();
    let folder = Folder::new("filled");
    let open = || {
        let embedded = Embedded::open(&folder.0).unwrap();
        let hot = Arc::new(embedded.load().unwrap());
        (embedded, hot)
    };
    let lineages: BTreeSet<Fingerprint> = plan.metrics.iter().map(|metric| metric.lineage).collect();
    let measured = |hot: &MemoryStore, counted: &BTreeSet<Fingerprint>| {
        hot.change_definitions(&Change { counted, wanted: counted, first: &[], ahead_ms: 0 });
    };
    let delta = |group, from, to, events: &[suite::Event]| {
        let source = |source| SourceRange { group, source, from, to, arrival: 9 };
        Delta { sources: vec![source(0), source(1)], partials: vec![suite::partial(&plan, events)] }
    };
    let (mut embedded, mut hot) = open();
    let (reference, mut random) = (MemoryStore::new(), StdRng::seed_from_u64(4));
    measured(&hot, &BTreeSet::new());
    hot.apply(delta(GROUP_ALL, 0, PIECES, &[])).unwrap();
    measured(&hot, &lineages);
    let live = suite::random_events(&mut random, 4 * 1440..4 * 1440 + 60);
    hot.apply(delta(GROUP_ALL, PIECES, PIECES + 1, &live)).unwrap();
    reference.apply(delta(GROUP_ALL, 0, 1, &live)).unwrap();
    hot.close_up_to(Minute(4 * 1440));
    embedded.checkpoint(&hot, None, &|| Ok(())).unwrap();
    assert_eq!(hot.evict(Minute(3 * 1440)), Minute(3 * 1440));
    let all: Vec<Fingerprint> = lineages.iter().copied().collect();
    for piece in 0..PIECES {
        let events = suite::random_events(&mut random, 1440..1560);
        let (gap, _) = hot.gaps().remove(0);
        assert!(hot.coverage(&all).filling);
        hot.apply(delta(gap.group, piece, piece + 1, &events)).unwrap();
        reference.apply(delta(GROUP_ALL, piece + 1, piece + 2, &events)).unwrap();
        assert!(hot.apply(delta(gap.group, piece, piece + 1, &events)).is_err(), "each piece once");
        if piece % 3 != 2 {
            embedded.checkpoint(&hot, None, &|| Ok(())).unwrap();
            hot.evict(Minute(3 * 1440));
        }
        if piece % 3 == 1 {
            drop((embedded, hot));
            (embedded, hot) = open();
        }
        let joined = JoinedReader::new(hot.clone(), Some(embedded.history()));
        assert_eq!(everything(&joined, 1440..1560), everything(&reference, 1440..1560), "piece {piece}");
        assert_eq!(everything(&joined, 4 * 1440..4 * 1440 + 60), everything(&reference, 4 * 1440..4 * 1440 + 60));
    }
    assert!(hot.gaps().is_empty());
    assert_eq!(hot.coverage(&all), Coverage::default());
    let more = hot.apply(delta(1, PIECES, PIECES + 1, &[]));
    assert!(matches!(more, Err(StoreError::NoGap { group: 1 })), "{more:?}");
}

#[test]
fn keeps_small_things_by_key() {
    let folder = Folder::new("meta");
    let embedded = Embedded::open(&folder.0).unwrap();
    assert_eq!(embedded.meta_get("lineages").unwrap(), None);
    embedded.meta_put("lineages", b"one").unwrap();
    embedded.meta_put("lineages", b"two").unwrap();
    drop(embedded);
    assert_eq!(Embedded::open(&folder.0).unwrap().meta_get("lineages").unwrap().as_deref(), Some(b"two".as_slice()));
}

#[test]
fn refuses_a_folder_that_is_not_its_own() {
    let folder = Folder::new("foreign");
    let first = Embedded::open(&folder.0).unwrap();
    let refused = |folder: &Folder| Embedded::open(&folder.0).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(refused(&folder).ends_with("is in use by another host"));
    drop(first);
    fs::write(folder.0.join(FORMAT_FILE), "2\n").unwrap();
    assert_eq!(refused(&folder), "the data folder has format 2, this version reads 1");
    fs::write(folder.0.join(FORMAT_FILE), "?").unwrap();
    assert!(refused(&folder).ends_with("does not hold a number"));
    fs::remove_file(folder.0.join(FORMAT_FILE)).unwrap();
    assert!(refused(&folder).ends_with("its file `format` is missing"));
    fs::write(folder.0.join(FORMAT_FILE), "1\n").unwrap();
    assert!(Embedded::open(&folder.0).is_ok());
}
