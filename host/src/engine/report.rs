//! What became of a batch, for whoever sent it and for those who look after what was not counted.

use super::decode::Rows;
use super::judge::Fate;
use super::plan::Plan;
use crate::time::Minute;

/// Dead letters of one batch; of a batch of messages each is one.
const LETTERS_MAX: usize = 10;

/// Every non-blank line is in exactly one of the four counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub counted: u64,
    pub rejected: u64,
    pub late: u64,
    pub duplicates: u64,
    /// The first rejected lines, by index among the non-blank ones.
    pub errors: Vec<(u64, String)>,
    /// Rejected and late events: the first few, all of a batch of messages.
    pub letters: Vec<DeadLetter>,
    /// Where lines begin in the batch that were not counted, in no order.
    pub uncounted: Vec<u32>,
    /// First and last minute of counted events.
    pub minutes: Option<(Minute, Minute)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    pub reason: String,
    /// Where the event stands in the batch.
    pub start: u32,
    pub end: u32,
}

impl Report {
    /// Notes what became of a chunk's lines; `counted` is called with the rows that count.
    pub fn add(
        &mut self,
        plan: &Plan,
        rows: &Rows,
        fates: &[Fate],
        errors_max: usize,
        all_letters: bool,
        mut counted: impl FnMut(usize),
    ) {
        let letters_max = if all_letters { usize::MAX } else { LETTERS_MAX };
        for reject in &rows.rejects {
            self.rejected += 1;
            self.uncounted.push(reject.start);
            self.put_aside(reject.line, reject.start, reject.end, reject.reason.to_string(), true, letters_max);
        }
        for (row, fate) in fates.iter().enumerate() {
            match fate {
                Fate::Counted => {
                    self.counted += 1;
                    counted(row);
                    continue;
                }
                Fate::Duplicate => {
                    self.uncounted.push(rows.start[row]);
                    self.duplicates += 1;
                    continue;
                }
                Fate::Late => self.late += 1,
                _ => self.rejected += 1,
            }
            self.uncounted.push(rows.start[row]);
            let (line, start, end) = (rows.line[row], rows.start[row], rows.end[row]);
            self.put_aside(line, start, end, fate.reason(plan), fate.is_rejected(), letters_max);
        }
        self.errors.sort_unstable_by_key(|(line, _)| *line);
        self.errors.truncate(errors_max);
    }

    #[cold]
    fn put_aside(&mut self, line: u32, start: u32, end: u32, reason: String, rejected: bool, letters_max: usize) {
        if self.letters.len() < letters_max {
            self.letters.push(DeadLetter { reason: reason.clone(), start, end });
        }
        if rejected {
            self.errors.push((u64::from(line), reason));
        }
    }
}
