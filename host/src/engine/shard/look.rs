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

/// An event by its place in the batch, and the values that it did not bring.
pub type Each<'a> = &'a mut dyn FnMut(Range<usize>, &[(FieldId, &Entry)]);

impl Shard {
    /// Calls `each` for every sound event that the plan's first filter holds for; without filters, for every sound event. Values
    /// are told of fields with `codes`.
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
        let Self { plan, rows, selection, columns, dictionaries, filters, truths, .. } = self;
        match filters.first_mut() {
            Some(filter) => filter.evaluate(columns, dictionaries, truths),
            None => {
                truths.clear();
                truths.resize(selection.len(), TRUE);
            }
        }
        let outputs = plan.enrichments.iter().flat_map(|it| it.outputs.iter().flatten());
        let replaced: Vec<FieldId> = outputs.filter(|output| output.replace).map(|output| output.field).collect();
        for (at, row) in selection.iter().enumerate().filter(|(at, _)| truths[*at] == TRUE) {
            let row = *row as usize;
            let filled = (0..plan.fields.len()).filter_map(|field| {
                let brought = rows.column(field)[row].kind() > Kind::Null && !replaced.contains(&field);
                let code = *columns.codes[field].get(at).filter(|code| !brought && **code != NO_VALUE)?;
                Some((field, &dictionaries[field].as_ref()?.entries()[code as usize]))
            });
            let filled: Vec<(FieldId, &Entry)> = filled.collect();
            each(rows.start[row] as usize..rows.end[row] as usize, &filled);
        }
    }
}
