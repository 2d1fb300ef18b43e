//! What a topic still knows of its past: which version had which change number and how many series, and the verdicts that were
//! told since. Does not hold points: a point knows itself which version changed it last.

use std::collections::VecDeque;

use super::frame::Body;
use super::request::Resume;

/// Versions that are known: 17 minutes of a refresh a second, three hours of one each 10 s.
const MARKS_MAX: usize = 1_024;
/// Verdicts that are kept to be told again.
const VERDICTS_MAX: usize = 256;

pub struct History {
    /// Says in snapshots which numbering of series they begin. No two histories have the same, on whatever host.
    pub epoch: u64,
    /// Change numbers from here on can only have been told by this history; `None`: any may be of another host.
    own_from: Option<u64>,
    /// Ascending in both numbers.
    marks: VecDeque<Mark>,
    verdicts: VecDeque<(u64, Body)>,
    /// Of this version and earlier ones not all verdicts are kept.
    verdicts_gone: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark {
    /// Of the version.
    pub number: u64,
    pub seq: u64,
    /// That had an index by then.
    pub series: usize,
}

impl History {
    pub fn new(first: Mark, own_from: Option<u64>) -> Self {
        let (marks, verdicts) = (VecDeque::from([first]), VecDeque::new());
        Self { epoch: rand::random(), own_from, marks, verdicts, verdicts_gone: 0 }
    }

    pub fn push(&mut self, mark: Mark, verdicts: &[Body]) {
        self.marks.push_back(mark);
        while self.marks.len() > MARKS_MAX {
            // Of equal change numbers all are known or none: who says one may have been told it by the earliest.
            let gone = self.marks.pop_front().map(|mark| mark.seq);
            while self.marks.len() > 1 && self.marks.front().map(|mark| mark.seq) == gone {
                self.marks.pop_front();
            }
        }
        self.verdicts.extend(verdicts.iter().map(|body| (mark.number, body.clone())));
        while self.verdicts.len() > VERDICTS_MAX {
            self.verdicts_gone = self.verdicts.pop_front().map_or(0, |(number, _)| number);
        }
    }

    /// The version to go on from for a client that was told this change number last; `None` where that is not certain.
    pub fn find(&self, asked: Resume) -> Option<Mark> {
        let told_here = match asked.epoch {
            Some(epoch) => epoch == self.epoch,
            None => self.own_from.is_some_and(|from| asked.seq >= from),
        };
        let at = self.marks.partition_point(|mark| mark.seq < asked.seq);
        let mut equal = self.marks.range(at..).take_while(|mark| mark.seq == asked.seq);
        let first = *equal.next()?;
        // It may be at any of them: points may be told twice, a new series may not.
        let same_series = equal.all(|mark| mark.series == first.series);
        (told_here && same_series && first.number > self.verdicts_gone).then_some(first)
    }

    /// The verdicts that were told with this version, which may have come as far as the change number and no further, and after.
    pub fn verdicts_from(&self, number: u64) -> impl Iterator<Item = &Body> {
        self.verdicts.iter().filter(move |(of, _)| *of >= number).map(|(_, body)| body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(number: u64, seq: u64, series: usize) -> Mark {
        Mark { number, seq, series }
    }

    fn asked(seq: u64) -> Resume {
        Resume { seq, epoch: None }
    }

    #[test]
    fn the_earliest_of_equal_change_numbers_counts() {
        let mut history = History::new(mark(1, 10, 1), Some(10));
        for (number, seq, series) in [(2, 12, 1), (3, 12, 1), (4, 15, 1), (5, 15, 2), (6, 16, 2)] {
            history.push(mark(number, seq, series), &[]);
        }
        let found = |seq| history.find(asked(seq)).map(|mark| mark.number);
        assert_eq!([10, 12, 16].map(found), [Some(1), Some(2), Some(6)]);
        assert_eq!([9, 11, 17].map(found), [None; 3], "nobody was told these");
        assert_eq!(found(15), None, "with or without the new series");
    }

    #[test]
    fn who_was_told_elsewhere_is_not_taken_for_ones_own() {
        let history = |own_from| History::new(mark(1, 10, 1), own_from);
        assert_eq!(history(Some(11)).find(asked(10)), None);
        assert_eq!(history(None).find(asked(10)), None);
        let shared = history(None);
        let by_epoch = |epoch| shared.find(Resume { seq: 10, epoch: Some(epoch) });
        assert_eq!(by_epoch(shared.epoch), Some(mark(1, 10, 1)));
        assert_eq!(by_epoch(shared.epoch ^ 1), None);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut history = History::new(mark(1, 1, 1), Some(1));
        let verdict = Body { op: "anomaly", bytes: "}".into() };
        let last = 3 * MARKS_MAX as u64;
        for number in 2..=last {
            // Three versions to each change number; a verdict to each tenth version.
            let verdicts = vec![verdict.clone(); usize::from(number % 10 == 0)];
            history.push(mark(number, number / 3, 1), &verdicts);
        }
        assert!(history.marks.len() <= MARKS_MAX && history.verdicts.len() == VERDICTS_MAX);
        let oldest = history.marks[0];
        assert_eq!(oldest.number % 3, 0, "the first of its change number");
        assert_eq!(history.find(asked(last / 3)).map(|mark| mark.number), Some(last));
        let known = (1..=last / 3).find(|&seq| history.find(asked(seq)).is_some());
        assert_eq!(known, Some(oldest.seq));
        let mut noisy = History::new(mark(1, 1, 1), Some(1));
        noisy.push(mark(2, 2, 1), &vec![verdict; VERDICTS_MAX + 1]);
        noisy.push(mark(3, 3, 1), &[]);
        assert_eq!([1, 2, 3].map(|seq| noisy.find(asked(seq)).is_some()), [false, false, true]);
        assert_eq!([2, 3].map(|number| noisy.verdicts_from(number).count()), [VERDICTS_MAX, 0]);
    }
}
