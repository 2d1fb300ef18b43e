//! What every history store must do: versions, ranges, retention, and cells merged by what was selected.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Approximate, sketch};
use crate::engine::plan::{Fingerprint, StateKind};
use crate::engine::summary::Summary;
use crate::engine::summary::quantile::Gather;
use crate::store::cells::{Cells, Column, Pane};
use crate::store::pane::{Decoded, Meaning, Wanted, decode, encode};
use crate::store::table::{ANY, Combinations};
use crate::store::{HistoryStore, Names, OTHER, PaneRecord, PaneRequest, Resolution, StoredPane};
use crate::time::Minute;

/// A pane of a metric with two dimensions and a state of each kind, two of some. What it holds follows from its arguments.
pub fn history_record(fingerprint: u64, resolution: Resolution, start: Minute, version: u64) -> PaneRecord {
    let mut random = StdRng::seed_from_u64(fingerprint ^ u64::from(start.0) ^ version << 32);
    let texts: [Vec<Arc<str>>; 2] =
        [["", OTHER, "de", "it's \\ a \n \"text\"", "ü"].map(Arc::from).into(), ["", "a", "b"].map(Arc::from).into()];
    let kinds = [
        StateKind::Count,
        StateKind::Sum,
        StateKind::Uniq,
        StateKind::Sum,
        StateKind::Min,
        StateKind::Max,
        StateKind::Uniq,
        StateKind::Quantile,
    ];
    let mut full = Combinations::new(2);
    let combinations = (0..5).flat_map(|first| (0..3).map(move |second| [first, second]));
    for combination in combinations.filter(|_| random.random_bool(0.5)) {
        full.push(&combination);
    }
    full.push(&[4, 2]);
    let mut margins = Combinations::new(2);
    margins.push(&[ANY, ANY]);
    for margin in [[2, ANY], [0, ANY], [ANY, 0], [ANY, 2]].into_iter().filter(|_| random.random_bool(0.7)) {
        margins.push(&margin);
    }
    let mut cells = |combinations: &Combinations| {
        let rows: Vec<u32> = (0..combinations.len() as u32).collect();
        let mut column = |&kind: &StateKind| {
            let mut number = || random.random_range(-1000.0..1000.0f64);
            match kind {
                StateKind::Count => Column::Count(rows.iter().map(|_| number().abs() as u64).collect()),
                StateKind::Sum => Column::Sum(rows.iter().map(|_| number()).collect()),
                StateKind::Min => Column::Min(rows.iter().map(|_| number()).collect()),
                StateKind::Max => Column::Max(rows.iter().map(|_| f64::NEG_INFINITY.max(number())).collect()),
                StateKind::Uniq => {
                    Column::Uniq(rows.iter().map(|_| Arc::new(sketch(0..number().abs() as u64 % 50))).collect())
                }
                _ => Column::Summary(
                    rows.iter()
                        .map(|_| {
                            let mut gather = Gather::default();
                            (0..3).for_each(|_| gather.push(number()));
                            Arc::new(Summary::Quantiles(gather.finish()))
                        })
                        .collect(),
                ),
            }
        };
        Cells { columns: kinds.iter().map(&mut column).collect(), rows }
    };
    let pane = Pane { full: cells(&full), margins: cells(&margins) };
    let texts: Vec<&[Arc<str>]> = texts.iter().map(Vec::as_slice).collect();
    let bytes = encode(Meaning { kinds: &kinds, texts: &texts, full: &full, margins: &margins }, &pane).unwrap();
    let names =
        Arc::new(Names { metric: format!("m{fingerprint}").into(), dimensions: vec!["first".into(), "count".into()] });
    PaneRecord { names, fingerprint: Fingerprint(fingerprint), resolution, start, version, bytes }
}

/// By whether it is a margin and by the selected dimensions' values (`None`: any), the merged states.
type Flat = BTreeMap<(bool, Vec<Option<String>>), Vec<Approximate>>;

fn flat(stored: &Decoded, selected: &[bool]) -> Flat {
    let mut flat = Flat::new();
    for (margins, cells, combinations) in
        [(false, &stored.pane.full, &stored.full), (true, &stored.pane.margins, &stored.margins)]
    {
        for (row, &number) in cells.rows.iter().enumerate() {
            let values = combinations.get(number).iter().enumerate();
            if margins && values.clone().any(|(at, value)| !selected[at] && *value != ANY) {
                continue;
            }
            let values = values.filter(|(at, _)| selected[*at]);
            let text =
                |(at, &value): (usize, &u32)| (value != ANY).then(|| stored.texts[at][value as usize].to_string());
            let state = |column: &Column| match column {
                Column::Count(column) => Approximate::Number(column[row] as f64),
                Column::Sum(column) | Column::Min(column) | Column::Max(column) => Approximate::Number(column[row]),
                Column::Uniq(column) => Approximate::Sketch((*column[row]).clone()),
                Column::Summary(column) => Approximate::Summary((*column[row]).clone()),
            };
            let states: Vec<_> = cells.columns.iter().map(state).collect();
            match flat.entry((margins, values.map(text).collect())) {
                std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(states)),
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    let merged = entry.get_mut().iter_mut().zip(&states).zip(&stored.kinds);
                    merged.for_each(|((into, state), kind)| into.merge(state, *kind));
                }
            }
        }
    }
    flat
}

impl Approximate {
    fn merge(&mut self, other: &Self, kind: StateKind) {
        match (self, other, kind) {
            (Self::Number(a), Self::Number(b), StateKind::Min) => *a = a.min(*b),
            (Self::Number(a), Self::Number(b), StateKind::Max) => *a = a.max(*b),
            (Self::Number(a), Self::Number(b), _) => *a += b,
            (Self::Sketch(a), Self::Sketch(b), _) => a.merge(b),
            (Self::Summary(a), Self::Summary(b), _) => a.merge(b),
            _ => unreachable!("of one kind"),
        }
    }
}

/// What is read, as start, version and content.
fn read_panes(store: &dyn HistoryStore, request: &PaneRequest<'_>) -> Vec<StoredPane> {
    let mut panes = Vec::new();
    let each = &mut |pane| {
        panes.push(pane);
        Ok(())
    };
    store.read(request, each).unwrap();
    panes
}

/// Holds what a store gives for a request against the records that it should give.
fn gives(store: &dyn HistoryStore, request: &PaneRequest<'_>, expected: &[&PaneRecord]) {
    let found = read_panes(store, request);
    let versions: Vec<_> = found.iter().map(|pane| (pane.start, pane.version)).collect();
    assert_eq!(versions, expected.iter().map(|record| (record.start, record.version)).collect::<Vec<_>>());
    let all = [true, true];
    let selected = request.selected.unwrap_or(&all);
    for (found, expected) in found.iter().zip(expected) {
        let mut expected = flat(&decode(&expected.bytes, request.wanted).unwrap(), selected);
        let mut found = flat(&found.content, selected);
        let wanted = |(margin, values): &(bool, Vec<Option<String>>)| {
            let mut selected = (0..2).filter(|at| selected[*at]).zip(values);
            // Of margins only those that have just what is selected are sure to be there.
            let exact = !margin || request.wanted == Wanted::All || values.iter().all(Option::is_some);
            exact
                && selected.all(|(at, value)| {
                    let mut filters = request.filters.iter().filter(|(dimension, _)| *dimension == at);
                    filters.all(|(_, values)| value.as_ref().is_some_and(|value| values.contains(value)))
                })
        };
        found.retain(|key, _| wanted(key));
        expected.retain(|key, _| wanted(key));
        assert_eq!(found, expected, "{request:?}");
    }
}

/// Versions, ranges, retention and selections of a history store. `today`: a day whose minutes are within retention.
pub fn history_store(store: &impl HistoryStore, today: u32) {
    let day = today * 1440;
    let record =
        |fingerprint, resolution, start: u32, version| history_record(fingerprint, resolution, Minute(start), version);
    let check = |fingerprint, resolution, steps: Range<u32>, expected: &[&PaneRecord]| {
        let steps = Minute(steps.start)..Minute(steps.end);
        let wanted = Wanted::All;
        let request = PaneRequest {
            fingerprint: Fingerprint(fingerprint),
            resolution,
            steps,
            wanted,
            selected: None,
            filters: &[],
        };
        gives(store, &request, expected);
    };
    let (minute, hour) = (Resolution::Minute, Resolution::Hour);
    let first = [
        record(1, minute, day, 5),
        record(1, minute, day + 1, 6),
        record(1, minute, day + 300, 7),
        record(1, hour, day, 6),
        record(2, minute, day, 5),
        record(u64::MAX, hour, day, 9),
    ];
    let of = |from: usize, to: usize| first[from..to].iter().collect::<Vec<_>>();
    for _ in 0..2 {
        store.write(&first).unwrap();
        check(1, minute, day..day + 300, &of(0, 2));
        check(1, minute, day + 1..day + 301, &of(1, 3));
        check(1, hour, day..day + 60, &of(3, 4));
        check(2, minute, day..day + 1440, &of(4, 5));
        check(u64::MAX, hour, day..day + 1440, &of(5, 6));
        check(3, minute, day..day + 1440, &[]);
        check(1, minute, day..day, &[]);
    }
    // The higher version stays, with more cells or with fewer.
    let mut newest = first[1].clone();
    for version in [4, 8, 7, 9, 10, 11, 12] {
        let second = [record(1, minute, day, 4), record(1, minute, day + 1, version)];
        store.write(&second).unwrap();
        newest = if version > newest.version { second[1].clone() } else { newest };
        check(1, minute, day..day + 2, &[&first[0], &newest]);
    }
    for selected in [[false, false], [true, false], [false, true], [true, true]] {
        for wanted in [Wanted::All, Wanted::Full, Wanted::Margins] {
            for filters in [
                vec![],
                vec![(0, vec!["de".to_owned(), "it's \\ a \n \"text\"".into()])],
                vec![(1, vec![]), (0, vec!["".into()])],
            ] {
                let filters: Vec<_> = filters.into_iter().filter(|(at, _)| selected[*at]).collect();
                let (steps, selected) = (Minute(day)..Minute(day + 400), Some(selected.as_slice()));
                let request = PaneRequest {
                    fingerprint: Fingerprint(1),
                    resolution: minute,
                    steps,
                    wanted,
                    selected,
                    filters: &filters,
                };
                gives_reduced(store, &request, &[&first[0], &newest, &first[2]]);
            }
        }
    }
    let at = |minutes: u32| Minute(day + minutes).start();
    let ever = day..day + 1440;
    store.expire(at(7 * 1440 + 59)).unwrap();
    check(1, minute, ever.clone(), &[&first[0], &newest, &first[2]]);
    store.expire(at(7 * 1440 + 60)).unwrap();
    check(1, minute, ever.clone(), &of(2, 3));
    check(2, minute, ever.clone(), &[]);
    check(1, hour, ever.clone(), &of(3, 4));
    check(u64::MAX, hour, ever.clone(), &of(5, 6));
    store.expire(at(400 * 1440 + 60)).unwrap();
    check(1, hour, ever.clone(), &[]);
    check(u64::MAX, hour, ever, &[]);
}

/// A store may leave a pane out of which the filters leave nothing.
fn gives_reduced(store: &dyn HistoryStore, request: &PaneRequest<'_>, expected: &[&PaneRecord]) {
    let given: BTreeSet<Minute> = read_panes(store, request).iter().map(|pane| pane.start).collect();
    let (given, missing): (Vec<&PaneRecord>, Vec<_>) =
        expected.iter().partition(|record| given.contains(&record.start));
    gives(store, request, &given);
    for record in missing {
        let stored = decode(&record.bytes, request.wanted).unwrap();
        let excluded = |key: &(bool, Vec<Option<String>>)| {
            let selected = request.selected.unwrap_or(&[true, true]);
            let mut values = (0..2).filter(|at| selected[*at]).zip(&key.1);
            values.any(|(at, value)| {
                let mut filters = request.filters.iter().filter(|(dimension, _)| *dimension == at);
                value.is_none()
                    || filters.any(|(_, values)| value.as_ref().is_some_and(|value| !values.contains(value)))
            })
        };
        assert!(
            flat(&stored, request.selected.unwrap_or(&[true, true])).keys().all(excluded),
            "{request:?} {record:?}"
        );
    }
}
