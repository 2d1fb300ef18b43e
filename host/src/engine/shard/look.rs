//! A look at events without counting them: which of them a condition holds for, and what they got besides what they brought.
//! Does not know who looks.

use std::ops::Range;

use super::{Input, Shard, Work};
use crate::engine::column::CHUNK_ROWS;
use crate::engine::decode::Kind;
use crate::engine::dictionary::{Entry, NO_VALUE};
use crate::engine::filter::TRUE;
use crate::engine::judge::IdCheck;
use crate::engine::plan::FieldId;
use crate::engine::report::Report;
use crate::time::Millis;

/// Who looks leaves no trace: the same ids are still to be counted.
struct Unremembered;

impl IdCheck for Unremembered {
    fn check(&mut self, _: &[u64], _: &[Millis], _: bool, _: &mut dyn FnMut(usize)) {}
}

/// A sound event that is looked at. Values are told of fields with `codes`.
pub struct Looked<'a> {
    /// Where it stands in the batch.
    pub bytes: Range<usize>,
    pub time: Millis,
    work: &'a Work,
    /// Its place among the chunk's rows, and among those that count.
    row: usize,
    at: usize,
}

pub type Each<'a> = &'a mut dyn FnMut(&Looked<'_>);

impl Looked<'_> {
    /// Brought or given.
    pub fn value(&self, field: FieldId) -> Option<&Entry> {
        let code = *self.work.columns.codes[field].get(self.at).filter(|code| **code != NO_VALUE)?;
        Some(&self.work.dictionaries[field].as_ref()?.entries()[code as usize])
    }

    /// What it did not bring itself, or what replaced that.
    pub fn filled(&self) -> impl Iterator<Item = (FieldId, &Entry)> {
        let plan = &self.work.plan;
        let outputs = move || plan.enrichments.iter().flat_map(|it| it.outputs.iter().flatten());
        (0..plan.fields.len()).filter_map(move |field| {
            let brought = self.work.rows.column(field)[self.row].kind() > Kind::Null;
            let replaced = brought && outputs().any(|output| output.replace && output.field == field);
            if brought && !replaced { None } else { Some((field, self.value(field)?)) }
        })
    }
}

impl Shard {
    /// Calls `each` for every sound event that the plan's first filter holds for; without filters, for every sound event.
    pub fn look(&mut self, input: &Input<'_>, each: Each<'_>) {
        let mut report = Report::default();
        let (mut at, mut line) = (0, 0);
        while at < input.len {
            let work = &mut self.work;
            if work.is_full() {
                work.forget_codes();
            }
            work.decoder.decode(input.buffer, input.len, &mut at, &mut line, CHUNK_ROWS, &mut work.rows);
            let last = at >= input.len;
            work.judge.run(&work.plan, &work.rows, input.buffer, input.arrival, &mut Unremembered, last);
            work.report(input, self.errors_max, &mut report);
            if !work.selection.is_empty() {
                work.fill_columns(input);
                work.enrich(self.number, input);
                work.tell(each);
            }
        }
    }
}

impl Work {
    fn tell(&mut self, each: Each<'_>) {
        let Self { selection, columns, dictionaries, filters, truths, .. } = self;
        match filters.first_mut() {
            Some(filter) => filter.evaluate(columns, dictionaries, truths),
            None => {
                truths.clear();
                truths.resize(selection.len(), TRUE);
            }
        }
        let work = &*self;
        for (at, row) in work.selection.iter().enumerate().filter(|(at, _)| work.truths[*at] == TRUE) {
            let row = *row as usize;
            let bytes = work.rows.start[row] as usize..work.rows.end[row] as usize;
            each(&Looked { bytes, time: work.judge.times[row], work, row, at });
        }
    }
}
