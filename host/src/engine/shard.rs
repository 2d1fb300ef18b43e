//! A shard: owns source partitions, turns their batches into partial aggregates, and hands those over at the tick.
//!
//! Knows nothing of the other shards but the table of ids they share.

mod look;

use std::sync::Arc;

use super::accumulator::Accumulator;
use super::column::{CHUNK_ROWS, Columns, value_hash};
use super::decode::{Decoder, Kind, Rows, Value};
use super::delta::{DimensionValue, MetricPartial, Partial};
use super::dictionary::{Dictionary, NO_VALUE};
use super::enrich::{Enricher, Inputs};
use super::filter::{Filter, TRUE};
use super::group::{GroupTable, Keys, Scratch};
use super::judge::{Arrival, IdCheck, Judge};
use super::messages::Messages;
use super::plan::{FieldDefault, FieldId, Plan};
use super::report::Report;
use crate::time::Minute;
pub use look::Looked;

/// Groups of one set of dimensions before a shard seals what it has: bounds what one tick can hold.
const GROUPS_MAX: usize = 1 << 20;

/// A batch as a shard sees it. `buffer` goes on for `decode::PADDING_BYTES` behind `len`.
pub struct Input<'a> {
    pub buffer: &'a [u8],
    pub len: usize,
    pub arrival: Arrival<'a>,
    /// Where its first line stands in the input; the next lines follow.
    pub order: u64,
    /// Who sent it, unless its messages say so themselves.
    pub address: Option<&'a str>,
    pub user_agent: Option<&'a str>,
}

pub struct Shard {
    number: usize,
    event_bytes_max: usize,
    errors_max: usize,
    work: Work,
    /// Partials that a full table or another plan has closed before the tick.
    sealed: Vec<Partial>,
}

/// Everything that is shaped by the plan.
struct Work {
    plan: Arc<Plan>,
    decoder: Decoder,
    rows: Rows,
    judge: Judge,
    selection: Vec<u32>,
    order: Vec<u64>,
    minutes: Vec<Minute>,
    columns: Columns,
    dictionaries: Vec<Option<Dictionary>>,
    enrichers: Vec<Enricher>,
    filters: Vec<Filter>,
    truths: Vec<u8>,
    selected: Vec<Vec<u32>>,
    groups: Vec<GroupTable>,
    scratch: Vec<Scratch>,
    /// For each group the rows that any of its metrics looks at; `None`: all.
    group_rows: Vec<Option<Vec<u32>>>,
    accumulators: Vec<Accumulator>,
    /// For each metric its slots' accumulators.
    metrics: Vec<Vec<usize>>,
    /// For each dimension, by code, the events that had the value.
    events: Vec<Vec<u64>>,
    wants_times: bool,
}

impl Shard {
    pub fn new(number: usize, plan: Arc<Plan>, event_bytes_max: usize, errors_max: usize) -> Self {
        Self { number, event_bytes_max, errors_max, work: Work::new(plan, event_bytes_max), sealed: Vec::new() }
    }

    pub fn plan(&self) -> &Arc<Plan> {
        &self.work.plan
    }

    /// Works by another plan from now on; what was gathered under the old one stays with it.
    pub fn adopt(&mut self, plan: Arc<Plan>) {
        self.seal();
        self.work = Work::new(plan, self.event_bytes_max);
    }

    /// Counts a batch.
    pub fn process(&mut self, input: &Input<'_>, ids: &mut impl IdCheck) -> Report {
        let mut report = Report::default();
        let (mut at, mut line) = (0, 0);
        while at < input.len {
            if self.work.is_full() {
                self.seal();
            }
            let work = &mut self.work;
            work.decoder.decode(input.buffer, input.len, &mut at, &mut line, CHUNK_ROWS, &mut work.rows);
            work.judge.run(&work.plan, &work.rows, input.buffer, input.arrival, ids, at >= input.len);
            work.report(input, self.errors_max, &mut report);
            if !work.selection.is_empty() {
                work.fill_columns(input);
                work.enrich(self.number, input);
                work.add_up();
            }
        }
        report
    }

    /// Judges a batch that was counted before, and remembers its ids; counts nothing. Says which lines do not count.
    pub fn judge(&mut self, input: &Input<'_>, ids: &mut impl IdCheck) -> Vec<u32> {
        let mut report = Report::default();
        let (mut at, mut line) = (0, 0);
        let work = &mut self.work;
        while at < input.len {
            work.decoder.decode(input.buffer, input.len, &mut at, &mut line, CHUNK_ROWS, &mut work.rows);
            work.judge.run(&work.plan, &work.rows, input.buffer, input.arrival, ids, at >= input.len);
            report.add(&work.plan, &work.rows, &work.judge.fates, self.errors_max, false, |_| {});
        }
        report.uncounted
    }

    /// Hands over what happened since the last cut and starts empty.
    pub fn cut(&mut self) -> Vec<Partial> {
        self.seal();
        std::mem::take(&mut self.sealed)
    }

    fn seal(&mut self) {
        self.sealed.extend(self.work.take());
        if self.work.dictionaries.iter().flatten().any(|dictionary| dictionary.is_full(2 * CHUNK_ROWS)) {
            self.work.forget_codes();
        }
    }
}

impl Work {
    fn new(plan: Arc<Plan>, event_bytes_max: usize) -> Self {
        let paths: Vec<Vec<String>> = plan.fields.iter().map(|field| field.path.clone()).collect();
        let mut accumulators: Vec<Accumulator> = Vec::new();
        let metrics = plan.metrics.iter().map(|metric| {
            let mut place = |slot: &super::plan::Slot| {
                let same = |it: &Accumulator| {
                    it.group == metric.group && it.filter == metric.filter && it.slot.same_state(slot)
                };
                accumulators.iter().position(same).unwrap_or_else(|| {
                    accumulators.push(Accumulator::new(metric.group, metric.filter, slot.clone()));
                    accumulators.len() - 1
                })
            };
            metric.slots.iter().map(&mut place).collect()
        });
        let metrics = metrics.collect();
        let is_output = |id: FieldId| {
            plan.enrichments.iter().any(|it| it.outputs.iter().flatten().any(|output| output.field == id))
        };
        // An output that another enrichment reads is handed on through its codes.
        let coded = |(id, field): (usize, &super::plan::Field)| {
            (field.codes || (field.enrichment_input && is_output(id))).then(Dictionary::default)
        };
        Self {
            decoder: Decoder::new(&paths, event_bytes_max),
            rows: Rows::default(),
            judge: Judge::new(plan.fields.len()),
            selection: Vec::new(),
            order: Vec::new(),
            minutes: Vec::new(),
            columns: Columns::new(plan.fields.len()),
            dictionaries: plan.fields.iter().enumerate().map(coded).collect(),
            enrichers: (0..plan.enrichments.len()).map(Enricher::new).collect(),
            filters: plan.filters.iter().map(Filter::new).collect(),
            truths: Vec::new(),
            selected: vec![Vec::new(); plan.filters.len()],
            groups: plan.groups.iter().map(|dimensions| GroupTable::new(dimensions.len())).collect(),
            scratch: plan.groups.iter().map(|_| Scratch::default()).collect(),
            group_rows: vec![None; plan.groups.len()],
            accumulators,
            metrics,
            events: vec![Vec::new(); plan.dimensions.len()],
            wants_times: plan.wants_times(),
            plan,
        }
    }

    fn is_full(&self) -> bool {
        self.groups.iter().any(|group| group.count() > GROUPS_MAX)
            || self.dictionaries.iter().flatten().any(|dictionary| dictionary.is_full(2 * CHUNK_ROWS))
    }

    fn forget_codes(&mut self) {
        self.dictionaries.iter_mut().flatten().for_each(|dictionary| *dictionary = Dictionary::default());
        self.enrichers.iter_mut().for_each(Enricher::forget);
        self.filters.iter_mut().for_each(Filter::forget);
    }

    /// Selects the rows that count, and says what became of the others.
    fn report(&mut self, input: &Input<'_>, errors_max: usize, report: &mut Report) {
        let Self { plan, rows, judge, selection, order, minutes, .. } = self;
        selection.clear();
        minutes.clear();
        order.clear();
        let all_letters = matches!(input.arrival, Arrival::Each(_));
        report.add(plan, rows, &judge.fates, errors_max, all_letters, |row| {
            selection.push(row as u32);
            minutes.push(Minute::of(judge.times[row]));
            order.push(input.order + u64::from(rows.line[row]));
        });
        if let (Some(first), Some(last)) = (minutes.iter().min(), minutes.iter().max()) {
            let so_far = report.minutes.unwrap_or((*first, *last));
            report.minutes = Some((so_far.0.min(*first), so_far.1.max(*last)));
        }
    }

    fn fill_columns(&mut self, input: &Input<'_>) {
        let plan = self.plan.clone();
        self.columns.rows = self.selection.len();
        if self.wants_times {
            self.columns.times.clear();
            self.columns.times.extend(self.selection.iter().map(|row| self.judge.times[*row as usize]));
        }
        for (id, field) in plan.fields.iter().enumerate() {
            let Self { rows, judge, selection, columns, dictionaries, .. } = self;
            let values = rows.column(id);
            let default = default_of(field.default, input);
            if let Some(dictionary) = &mut dictionaries[id] {
                let codes = &mut columns.codes[id];
                codes.clear();
                codes.extend(
                    selection.iter().map(|row| code_of(dictionary, rows, input.buffer, values[*row as usize], default)),
                );
            }
            if field.number {
                let numbers = &mut columns.numbers[id];
                numbers.clear();
                numbers.extend(selection.iter().map(|row| judge.numbers[id][*row as usize]));
            }
            if field.hash {
                let hashes = &mut columns.hashes[id];
                hashes.clear();
                hashes.extend(selection.iter().map(|row| {
                    let value = values[*row as usize];
                    match (value.kind(), default) {
                        (Kind::Missing | Kind::Null, None) => 0,
                        (Kind::Missing | Kind::Null, Some(text)) => value_hash(Kind::Text, text.as_bytes()),
                        (kind, _) => value_hash(kind, rows.bytes(input.buffer, value)),
                    }
                }));
            }
            if let (Arrival::Each(messages), true) = (input.arrival, field.default != FieldDefault::None) {
                self.fill_from_messages(id, input.buffer, messages);
            }
        }
    }

    /// What the event does not bring, its message may.
    fn fill_from_messages(&mut self, id: FieldId, buffer: &[u8], messages: &Messages) {
        let Self { plan, rows, judge, selection, columns, dictionaries, .. } = self;
        let field = &plan.fields[id];
        let values = rows.column(id);
        for (at, row) in selection.iter().enumerate() {
            let row = *row as usize;
            if values[row].kind() > Kind::Null {
                continue;
            }
            let Some(text) = default_of_message(field.default, messages, judge.messages[row]) else { continue };
            if let Some(dictionary) = &mut dictionaries[id] {
                columns.codes[id][at] = code_of(dictionary, rows, buffer, values[row], Some(text));
            }
            if field.hash {
                columns.hashes[id][at] = value_hash(Kind::Text, text.as_bytes());
            }
        }
    }

    fn enrich(&mut self, shard: usize, input: &Input<'_>) {
        let Self { plan, rows, judge, selection, columns, dictionaries, enrichers, events, .. } = self;
        let inputs = ChunkInputs { plan, rows, selection, input, messages: &judge.messages };
        for enricher in enrichers {
            enricher.run(shard, &plan.enrichments, &inputs, dictionaries, columns);
        }
        for (dimension, events) in plan.dimensions.iter().zip(events) {
            events.resize(dictionaries[dimension.field].as_ref().map_or(0, Dictionary::count), 0);
            columns.codes[dimension.field].iter().for_each(|code| events[*code as usize] += 1);
        }
    }

    fn add_up(&mut self) {
        let Self {
            plan,
            order,
            minutes,
            columns,
            dictionaries,
            filters,
            truths,
            selected,
            groups,
            scratch,
            group_rows,
            accumulators,
            ..
        } = self;
        for (filter, selected) in filters.iter_mut().zip(&mut *selected) {
            filter.evaluate(columns, dictionaries, truths);
            selected.clear();
            selected.extend(truths.iter().enumerate().filter(|(_, truth)| **truth == TRUE).map(|(row, _)| row as u32));
        }
        for (id, group) in groups.iter_mut().enumerate() {
            let filters_of = plan.metrics.iter().filter(|metric| metric.group == id).map(|metric| metric.filter);
            let rows = filters_of.map(|filter| filter.map(|filter| &selected[filter])).collect::<Option<Vec<_>>>();
            group_rows[id] = rows.map(|lists| union(&lists));
            let codes: Vec<&[u32]> =
                plan.groups[id].iter().map(|dimension| &*columns.codes[plan.dimensions[*dimension].field]).collect();
            group.number(&Keys { order, minutes, columns: &codes }, group_rows[id].as_deref(), &mut scratch[id]);
        }
        for accumulator in accumulators {
            let selection = accumulator.filter.map(|filter| selected[filter].as_slice());
            let group = accumulator.group;
            accumulator.add(columns, selection, selected, &scratch[group].numbers, groups[group].count());
        }
    }

    /// What was added up since the last call; `None` if nothing was.
    fn take(&mut self) -> Option<Partial> {
        let nothing = self.groups.iter().all(|group| group.count() == 0)
            && self.events.iter().flatten().all(|events| *events == 0);
        if nothing {
            return None;
        }
        let mut metrics = Vec::new();
        for (metric, slots) in self.metrics.iter().enumerate() {
            let mut touched = vec![false; self.groups[self.plan.metrics[metric].group].count()];
            slots.iter().for_each(|slot| self.accumulators[*slot].mark(&mut touched));
            let rows: Vec<u32> = (0..touched.len() as u32).filter(|row| touched[*row as usize]).collect();
            if !rows.is_empty() {
                let slots =
                    slots.iter().map(|slot| self.accumulators[*slot].states(&rows, &self.dictionaries)).collect();
                metrics.push(MetricPartial { metric, rows, slots });
            }
        }
        let mut groups: Vec<_> = self.groups.iter_mut().map(GroupTable::take).collect();
        self.accumulators.iter_mut().for_each(Accumulator::clear);
        let mut values = Vec::new();
        for (id, dimension) in self.plan.dimensions.iter().enumerate() {
            let events = std::mem::take(&mut self.events[id]);
            let dictionary = self.dictionaries[dimension.field].as_ref();
            let (of_dimension, compact) = compact(dictionary, &events);
            values.push(of_dimension);
            for (group, dimensions) in groups.iter_mut().zip(&self.plan.groups) {
                let columns = dimensions.iter().enumerate().filter(|(_, it)| **it == id).map(|(column, _)| column);
                for column in columns {
                    let codes = group.codes.iter_mut().skip(column).step_by(dimensions.len());
                    codes.for_each(|code| *code = compact[*code as usize]);
                }
            }
        }
        Some(Partial { plan: self.plan.clone(), values, groups, metrics })
    }
}

/// The values that occurred, and for each code its place among them.
fn compact(dictionary: Option<&Dictionary>, events: &[u64]) -> (Vec<DimensionValue>, Vec<u32>) {
    let (mut values, mut places) = (Vec::new(), vec![0; events.len()]);
    for (code, events) in events.iter().enumerate() {
        if *events > 0
            && let Some(dictionary) = dictionary
        {
            places[code] = values.len() as u32;
            values.push(DimensionValue { text: dictionary.text(code as u32).clone(), events: *events });
        }
    }
    (values, places)
}

fn default_of<'a>(default: FieldDefault, input: &Input<'a>) -> Option<&'a str> {
    match default {
        FieldDefault::None => None,
        FieldDefault::ClientAddress => input.address,
        FieldDefault::UserAgent => input.user_agent,
    }
}

fn default_of_message(default: FieldDefault, messages: &Messages, message: u32) -> Option<&str> {
    match default {
        FieldDefault::None => None,
        FieldDefault::ClientAddress => messages.address(message),
        FieldDefault::UserAgent => messages.user_agent(message),
    }
}

#[inline]
fn code_of(dictionary: &mut Dictionary, rows: &Rows, buffer: &[u8], value: Value, default: Option<&str>) -> u32 {
    match value.kind() {
        Kind::Missing | Kind::Null => default.map_or(NO_VALUE, |text| dictionary.code(Kind::Text, text.as_bytes())),
        Kind::True => dictionary.code(Kind::True, b"true"),
        Kind::False => dictionary.code(Kind::False, b"false"),
        // Not null, and equal to nothing.
        kind @ (Kind::Object | Kind::Array) => dictionary.code(kind, b""),
        kind => dictionary.code(kind, rows.bytes(buffer, value)),
    }
}

/// Ascending rows that are in any of the lists.
fn union(lists: &[&Vec<u32>]) -> Vec<u32> {
    match lists {
        [] => Vec::new(),
        [one] => one.to_vec(),
        many => {
            let mut rows: Vec<u32> = many.iter().flat_map(|list| list.iter().copied()).collect();
            rows.sort_unstable();
            rows.dedup();
            rows
        }
    }
}

struct ChunkInputs<'a> {
    plan: &'a Plan,
    rows: &'a Rows,
    selection: &'a [u32],
    input: &'a Input<'a>,
    /// The message of each row, where the batch came as messages.
    messages: &'a [u32],
}

impl ChunkInputs<'_> {
    fn default(&self, field: FieldId, row: usize) -> Option<&str> {
        let default = self.plan.fields[field].default;
        match self.input.arrival {
            Arrival::Each(messages) => {
                default_of_message(default, messages, self.messages[self.selection[row] as usize])
            }
            _ => default_of(default, self.input),
        }
    }
}

impl Inputs for ChunkInputs<'_> {
    #[inline]
    fn text<'a>(
        &'a self,
        field: FieldId,
        row: usize,
        dictionaries: &'a [Option<Dictionary>],
        columns: &'a Columns,
    ) -> Option<&'a [u8]> {
        let value = self.rows.column(field)[self.selection[row] as usize];
        match value.kind() {
            Kind::Text | Kind::Number => Some(self.rows.bytes(self.input.buffer, value)),
            Kind::True => Some(b"true"),
            Kind::False => Some(b"false"),
            _ => match (self.default(field, row), columns.codes[field].get(row)) {
                (Some(text), _) => Some(text.as_bytes()),
                (None, Some(code)) if *code != NO_VALUE => Some(dictionaries[field].as_ref()?.text(*code).as_bytes()),
                _ => None,
            },
        }
    }

    #[inline]
    fn brought(&self, field: FieldId, row: usize) -> bool {
        self.rows.column(field)[self.selection[row] as usize].kind() > Kind::Null
    }
}
