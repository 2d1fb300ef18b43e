//! Looks at a batch without counting it: which lines are events, and whom each is about. What stands before a log whose readers
//! count later.
//!
//! Judges as `shard` does, but for what those who count say: what is late or a duplicate is an event here.

use std::sync::Arc;

use super::column::CHUNK_ROWS;
use super::decode::{Decoder, Kind, Rows};
use super::judge::{Fate, IdCheck, Judge};
use super::plan::Plan;
use super::report::Report;
use super::shard::Input;
use crate::time::Millis;

pub struct Screen {
    plan: Arc<Plan>,
    decoder: Decoder,
    rows: Rows,
    judge: Judge,
    errors_max: usize,
}

/// No id was seen before.
struct Unknown;

impl IdCheck for Unknown {
    fn check(&mut self, _hashes: &[u64], _arrivals: &[Millis], _last: bool, _duplicate: &mut dyn FnMut(usize)) {}
}

impl Screen {
    pub fn new(plan: Arc<Plan>, event_bytes_max: usize, errors_max: usize) -> Self {
        let paths: Vec<Vec<String>> = plan.fields.iter().map(|field| field.path.clone()).collect();
        let (decoder, judge) = (Decoder::new(&paths, event_bytes_max), Judge::new(plan.fields.len()));
        Self { plan, decoder, rows: Rows::default(), judge, errors_max }
    }

    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Calls `event` with each line that is an event, late ones included, and its key's text, if it has one.
    pub fn run(&mut self, input: &Input<'_>, mut event: impl FnMut(&[u8], Option<&[u8]>)) -> Report {
        let Self { plan, decoder, rows, judge, errors_max } = self;
        let mut report = Report::default();
        let (mut at, mut line) = (0, 0);
        while at < input.len {
            decoder.decode(input.buffer, input.len, &mut at, &mut line, CHUNK_ROWS, rows);
            judge.run(plan, rows, input.buffer, input.arrival, &mut Unknown, at >= input.len);
            // Late events are accepted here: those who count put them aside.
            judge.fates.iter_mut().filter(|fate| **fate == Fate::Late).for_each(|fate| *fate = Fate::Counted);
            report.add(plan, rows, &judge.fates, *errors_max, false, |_| {});
            let keys = plan.event.key.map(|field| rows.column(field));
            for (row, _) in judge.fates.iter().enumerate().filter(|(_, fate)| **fate == Fate::Counted) {
                let key = keys.map(|keys| keys[row]).filter(|key| key.kind() > Kind::Null);
                let key = key.map(|key| match key.kind() {
                    Kind::True => b"true".as_slice(),
                    Kind::False => b"false",
                    _ => rows.bytes(input.buffer, key),
                });
                event(&input.buffer[rows.start[row] as usize..rows.end[row] as usize], key);
            }
        }
        report
    }
}
