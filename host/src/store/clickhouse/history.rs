//! History in ClickHouse: a pane is the rows of its cells, written in one block; a later version replaces all of them.
//!
//! A read takes the newest version of each pane as a whole, so that it never sees a part of two. That the tables' `FINAL` says
//! the same to others is due to the rows' numbers: see `cells::put_rows`.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use xxhash_rust::xxh3::Xxh3;

use super::cells::{self, Builder, Row, TOTAL};
use super::connection::{BLOCK_ROWS_MAX, quoted};
use super::rows::{Reader, all, malformed, put_bytes, put_length};
use super::schema::column;
use super::{ClickHouse, Known, Shape, seconds};
use crate::engine::plan::{Fingerprint, StateKind};
use crate::store::embedded::{HOURS_KEPT_DAYS, MINUTES_KEPT_DAYS};
use crate::store::pane::{Decoded, Wanted, decode};
use crate::store::{HistoryStore, Names, PaneRecord, PaneRequest, Resolution, StoreError, StoredPane};
use crate::time::{DAY_MS, Millis, Minute};

/// An insert ends with the pane that brings it over this. A pane is never cut.
const INSERT_ROWS: usize = 200_000;
const INSERT_BYTES: usize = 64 << 20;
/// Steps of one query: of cells by all dimensions there are many.
const STEPS_WHOLE: u32 = 240;
const STEPS_REDUCED: u32 = 1440;

/// What is there of a pane.
#[derive(Default)]
struct Before {
    version: u64,
    /// By part, how many rows.
    rows: HashMap<String, u32>,
}

impl HistoryStore for ClickHouse {
    fn write(&self, panes: &[PaneRecord]) -> Result<(), StoreError> {
        for resolution in [Resolution::Minute, Resolution::Hour] {
            let panes: Vec<&PaneRecord> = panes.iter().filter(|pane| pane.resolution == resolution).collect();
            if !panes.is_empty() {
                self.write_table(resolution, &panes)?;
            }
        }
        Ok(())
    }

    fn read(
        &self,
        request: &PaneRequest<'_>,
        each: &mut dyn FnMut(StoredPane) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let from = request.steps.start.0.max(self.kept_from(request.resolution).load(Relaxed));
        // The last second that a `DateTime` can say.
        let to = request.steps.end.0.min(u32::MAX / 60);
        if from >= to {
            return Ok(());
        }
        let Some(shape) = self.shape(request.fingerprint)? else { return Ok(()) };
        let whole = vec![true; shape.names.dimensions.len()];
        let selected = match request.selected {
            Some(selected) if selected.len() == whole.len() => selected,
            // With another shape than asked for: the reader says so.
            _ => &whole,
        };
        let steps = if selected.contains(&false) { STEPS_REDUCED } else { STEPS_WHOLE } * request.resolution.minutes();
        for from in (from..to).step_by(steps as usize) {
            let steps = Minute(from)..Minute(to.min(from.saturating_add(steps)));
            self.read_steps(request, &shape, selected, steps, each)?;
        }
        Ok(())
    }

    /// The tables' TTL removes; until it has, nothing older is read.
    fn expire(&self, now: Millis) -> Result<(), StoreError> {
        let before = |days: i64| Minute::of(now.saturating_sub(days * DAY_MS)).hour();
        self.note_kept_from(Resolution::Minute, before(MINUTES_KEPT_DAYS));
        self.note_kept_from(Resolution::Hour, before(HOURS_KEPT_DAYS));
        Ok(())
    }
}

pub(super) fn table(resolution: Resolution) -> &'static str {
    match resolution {
        Resolution::Minute => "minutes",
        Resolution::Hour => "hours",
    }
}

impl ClickHouse {
    fn write_table(&self, resolution: Resolution, panes: &[&PaneRecord]) -> Result<(), StoreError> {
        let mut dimensions: Vec<Arc<str>> =
            panes.iter().flat_map(|pane| pane.names.dimensions.iter().cloned()).collect();
        dimensions.sort();
        dimensions.dedup();
        let decoded = panes.iter().map(|pane| decode(&pane.bytes, Wanted::All)).collect::<Result<Vec<_>, _>>()?;
        self.with_known(|known| self.make_room(known, panes, &decoded, &dimensions))?;
        let before = self.before(resolution, panes)?;
        let columns: Vec<String> = dimensions.iter().map(|name| format!(", `{}`", column(name))).collect();
        let into = format!("{} ({}{})", self.schema.table(table(resolution)), cells::COLUMNS, columns.concat());
        let mut rows = Vec::new();
        let (mut count, mut token) = (0, Xxh3::new());
        let nothing = Before::default();
        for (at, (pane, decoded)) in panes.iter().zip(&decoded).enumerate() {
            let before = before.get(&(pane.fingerprint.0, seconds(pane.start))).unwrap_or(&nothing);
            if before.version <= pane.version {
                count += cells::put_rows(&mut rows, pane, decoded, &dimensions, &before.rows);
                for number in [pane.fingerprint.0, u64::from(pane.start.0), pane.version] {
                    token.update(&number.to_le_bytes());
                }
            }
            if count > BLOCK_ROWS_MAX {
                return Err(StoreError::Unavailable(format!(
                    "{count} cells are more than ClickHouse is given at once"
                )));
            }
            if count > 0 && (count >= INSERT_ROWS || rows.len() >= INSERT_BYTES || at + 1 == panes.len()) {
                self.connection.insert(&into, &format!("{}-{:016x}", table(resolution), token.digest()), &rows)?;
                rows.clear();
                (count, token) = (0, Xxh3::new());
            }
        }
        Ok(())
    }

    /// Columns for new dimensions, and the shapes of new metrics.
    fn make_room(
        &self,
        known: &mut Known,
        panes: &[&PaneRecord],
        decoded: &[Decoded],
        dimensions: &[Arc<str>],
    ) -> Result<(), StoreError> {
        for column in dimensions.iter().map(|name| column(name)) {
            if !known.columns.contains(&column) {
                self.schema.add_column(&self.connection, &column)?;
                known.columns.insert(column);
            }
        }
        let mut rows = Vec::new();
        let mut added = HashMap::new();
        for (pane, decoded) in panes.iter().zip(decoded) {
            let shape = Shape { names: (*pane.names).clone(), kinds: decoded.kinds.clone() };
            let stored = known.metrics.get(&pane.fingerprint).or(added.get(&pane.fingerprint));
            if stored.is_none_or(|stored: &Arc<Shape>| **stored != shape) {
                put_shape(&mut rows, pane.fingerprint, &shape);
                added.insert(pane.fingerprint, Arc::new(shape));
            }
        }
        if !added.is_empty() {
            let into = format!("{} (fingerprint, metric, dimensions, kinds)", self.schema.table("metrics"));
            self.connection.insert(&into, &format!("metrics-{:016x}", xxhash_rust::xxh3::xxh3_64(&rows)), &rows)?;
            known.metrics.extend(added);
        }
        Ok(())
    }

    /// What is there of these panes already: mostly nothing.
    fn before(&self, resolution: Resolution, panes: &[&PaneRecord]) -> Result<HashMap<(u64, u32), Before>, StoreError> {
        let distinct = |values: HashSet<String>| values.into_iter().collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT fingerprint, start, part, max(row) + 1, max(version) FROM {} WHERE fingerprint IN ({}) AND start IN ({}) \
            GROUP BY fingerprint, start, part",
            self.schema.table(table(resolution)),
            distinct(panes.iter().map(|pane| pane.fingerprint.0.to_string()).collect()),
            distinct(panes.iter().map(|pane| format!("toDateTime({}, 'UTC')", seconds(pane.start))).collect()),
        );
        let row = |row: &mut Reader<'_>| {
            Some(((row.u64()?, row.u32()?), row.text()?.to_owned(), row.u64()? as u32, row.u64()?))
        };
        let mut before: HashMap<_, Before> = HashMap::new();
        for (pane, part, rows, version) in all(&self.connection.fetch_all(&sql)?, row)? {
            let before = before.entry(pane).or_default();
            before.rows.insert(part, rows);
            before.version = before.version.max(version);
        }
        Ok(before)
    }

    /// `None`: ClickHouse has nothing of this metric.
    fn shape(&self, fingerprint: Fingerprint) -> Result<Option<Arc<Shape>>, StoreError> {
        self.with_known(|known| {
            if let Some(shape) = known.metrics.get(&fingerprint) {
                return Ok(Some(shape.clone()));
            }
            let sql = format!(
                "SELECT metric, dimensions, kinds FROM {} FINAL WHERE fingerprint = {}",
                self.schema.table("metrics"),
                fingerprint.0
            );
            let Some(shape) = all(&self.connection.fetch_all(&sql)?, shape)?.pop() else { return Ok(None) };
            let shape = Arc::new(shape);
            known.metrics.insert(fingerprint, shape.clone());
            Ok(Some(shape))
        })
    }

    fn read_steps(
        &self,
        request: &PaneRequest<'_>,
        shape: &Shape,
        selected: &[bool],
        steps: Range<Minute>,
        each: &mut dyn FnMut(StoredPane) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let sql = self.select(request, shape, selected, &steps);
        let mut pending: Vec<u8> = Vec::new();
        let mut panes = Panes { shape, current: None, each };
        self.connection.fetch(&sql, |piece| {
            pending.extend_from_slice(&piece);
            let mut reader = Reader::new(&pending);
            let mut read = 0;
            while let Some(row) = Row::read(&mut reader, selected) {
                panes.add(&row)?;
                read = pending.len() - reader.left();
            }
            pending.drain(..read);
            Ok(())
        })?;
        if !pending.is_empty() {
            return Err(malformed());
        }
        panes.end()
    }

    /// One row for each pane, version and combination of what was selected.
    fn select(&self, request: &PaneRequest<'_>, shape: &Shape, selected: &[bool], steps: &Range<Minute>) -> String {
        let names = shape.names.dimensions.iter().zip(selected);
        let asked: Vec<_> = names.filter(|(_, selected)| **selected).map(|(name, _)| name).collect();
        let columns: String = asked.iter().map(|name| format!(", `{}`", column(name))).collect();
        let part = match (request.wanted, asked.as_slice()) {
            (Wanted::All, _) => String::new(),
            (Wanted::Full, _) => " AND part = ''".into(),
            (Wanted::Margins, []) => format!(" AND part = '{TOTAL}'"),
            (Wanted::Margins, [name]) => format!(" AND part = '{name}'"),
            (Wanted::Margins, _) => " AND part != ''".into(),
        };
        let mut filters = String::new();
        let one_part = request.wanted == Wanted::Full || request.wanted == Wanted::Margins && asked.len() == 1;
        for (at, values) in request.filters.iter().filter(|_| one_part) {
            if let Some(name) = shape.names.dimensions.get(*at) {
                let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
                let condition = if values.is_empty() {
                    "0".into()
                } else {
                    format!("`{}` IN ({})", column(name), values.join(", "))
                };
                filters.push_str(&format!(" AND {condition}"));
            }
        }
        let gathered = |column: &str, needed: bool| {
            if needed { format!("groupArray({column})") } else { "CAST([], 'Array(String)')".into() }
        };
        format!(
            "SELECT start, version, part{columns}, sum(r.count), sum(r.sum), min(r.min), max(r.max), {sketches}, {rests} \
            FROM {table} AS r FINAL WHERE fingerprint = {fingerprint} AND start >= {from} AND start < {to}{part}{filters} \
            AND NOT gone GROUP BY start, version, part{columns} ORDER BY start \
            SETTINGS do_not_merge_across_partitions_select_final = 1",
            sketches = gathered("sketch", shape.kinds.contains(&StateKind::Uniq)),
            rests = gathered("rest", cells::has_rest(&shape.kinds)),
            table = self.schema.table(table(request.resolution)),
            fingerprint = request.fingerprint.0,
            from = seconds(steps.start),
            to = seconds(steps.end),
        )
    }
}

/// Puts rows together to panes, each of its newest version.
struct Panes<'a> {
    shape: &'a Shape,
    current: Option<(u32, u64, Builder<'a>)>,
    each: &'a mut dyn FnMut(StoredPane) -> Result<(), StoreError>,
}

impl Panes<'_> {
    fn add(&mut self, row: &Row<'_>) -> Result<(), StoreError> {
        let is_new = match &self.current {
            Some((start, version, _)) if *start == row.start => {
                if row.version < *version {
                    return Ok(());
                }
                // A newer one replaces what was gathered.
                row.version > *version
            }
            Some(_) => {
                self.end()?;
                true
            }
            None => true,
        };
        if is_new {
            self.current = Some((row.start, row.version, Builder::new(&self.shape.names, &self.shape.kinds)));
        }
        self.current.as_mut().map_or(Ok(()), |(_, _, builder)| builder.add(row))
    }

    fn end(&mut self) -> Result<(), StoreError> {
        let Some((start, version, builder)) = self.current.take() else { return Ok(()) };
        (self.each)(StoredPane { start: Minute(start / 60), version, content: builder.finish() })
    }
}

fn put_shape(out: &mut Vec<u8>, fingerprint: Fingerprint, shape: &Shape) {
    out.extend_from_slice(&fingerprint.0.to_le_bytes());
    put_bytes(out, shape.names.metric.as_bytes());
    put_length(out, shape.names.dimensions.len());
    shape.names.dimensions.iter().for_each(|name| put_bytes(out, name.as_bytes()));
    put_length(out, shape.kinds.len());
    shape.kinds.iter().for_each(|kind| put_bytes(out, kind_name(*kind).as_bytes()));
}

fn shape(row: &mut Reader<'_>) -> Option<Shape> {
    let metric = row.text()?.into();
    let dimensions = row.list(|row| row.text().map(Arc::from))?;
    let kinds = row.list(|row| row.text().and_then(kind_of))?;
    Some(Shape { names: Names { metric, dimensions }, kinds })
}

fn kind_name(kind: StateKind) -> &'static str {
    match kind {
        StateKind::Count => "count",
        StateKind::Sum => "sum",
        StateKind::Min => "min",
        StateKind::Max => "max",
        StateKind::Uniq => "uniq",
        StateKind::Quantile => "quantile",
        StateKind::Top => "top",
        StateKind::Funnel => "funnel",
    }
}

fn kind_of(name: &str) -> Option<StateKind> {
    StateKind::ALL.into_iter().find(|kind| kind_name(*kind) == name)
}
