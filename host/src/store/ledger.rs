//! Which metrics are counted from where in the log: gaps, and how far back each metric is complete. Positions say how far a gap is
//! filled; both are kept with the state, so that after a crash they speak of the same moment. Knows no cells and no clock.
//!
//! A metric is its lineage here: what a plugin's change begins anew goes on where the one before it stood.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Coverage;
use crate::engine::delta::{GROUP_ALL, SourceId, StateGroup};
use crate::engine::plan::Fingerprint;
use crate::time::{MINUTE_MS, Millis};

/// By state group and source where it goes on, with the newest arrival before that.
pub type Positions = BTreeMap<(StateGroup, SourceId), (u64, Millis)>;

/// A part of the log that some metrics are not counted in: from the positions of its group on, or from the log's beginning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    pub group: StateGroup,
    pub lineages: BTreeSet<Fingerprint>,
    /// By source where they are counted again. `None`: they are not.
    pub until: Option<Vec<(SourceId, u64)>>,
    /// Minutes from here on lie behind the gap.
    pub complete_from: Millis,
    /// Minutes from here on lie behind what the log had lost of the gap when that was to be read. 0: nothing.
    pub lost_until: Millis,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// Every metric that is or was counted, as long as the log reaches back to where it was.
    known: BTreeSet<Fingerprint>,
    gaps: Vec<Gap>,
    /// Metrics whose gaps are to be filled.
    wanted: BTreeSet<Fingerprint>,
    /// Minutes from here on are complete, where older ones are not and nothing can be done about it.
    complete_from: BTreeMap<Fingerprint, Millis>,
    last_group: StateGroup,
}

/// What a change of definitions is judged by.
pub struct Change<'c> {
    /// Lineages that are counted from now on.
    pub counted: &'c BTreeSet<Fingerprint>,
    /// Of them those whose gaps are to be filled.
    pub wanted: &'c BTreeSet<Fingerprint>,
    /// By source where the log begins.
    pub first: &'c [(SourceId, u64)],
    /// How far an event may be ahead of its arrival.
    pub ahead_ms: Millis,
}

/// The first minute for which no event can have arrived at or before `arrival`.
pub fn minute_behind(arrival: Millis, ahead_ms: Millis) -> Millis {
    (arrival.saturating_add(ahead_ms) / MINUTE_MS + 1) * MINUTE_MS
}

impl Ledger {
    /// The ledger of state that was counted before there was one: nobody knows from where on, so nothing is filled.
    pub fn adopt(positions: &Positions, change: &Change<'_>) -> Self {
        let behind = minute_behind(newest(positions, GROUP_ALL), change.ahead_ms);
        Self {
            known: change.counted.clone(),
            complete_from: change.counted.iter().map(|lineage| (*lineage, behind)).collect(),
            ..Self::default()
        }
    }

    /// Other definitions hold from where the state stands.
    pub fn change(&mut self, positions: &mut Positions, change: &Change<'_>) {
        let here = ends(positions, GROUP_ALL);
        let behind = match here.is_empty() {
            true => 0,
            false => minute_behind(newest(positions, GROUP_ALL), change.ahead_ms),
        };
        self.leave(positions, change.counted);
        self.come_back(positions, change.counted, &here, behind);
        let new: BTreeSet<_> = change.counted.difference(&self.known).copied().collect();
        self.known.extend(&new);
        if !new.is_empty() && !here.is_empty() {
            let group = self.next_group();
            self.gaps.push(Gap { group, lineages: new, until: Some(here), complete_from: behind, lost_until: 0 });
        }
        self.forget(positions, change);
        self.wanted = change.wanted.clone();
        // A fill is of all metrics of its gap or of none.
        for at in 0..self.gaps.len() {
            if self.gaps[at].until.is_some() {
                self.split(positions, at, change.wanted);
            }
        }
    }

    /// Metrics that are no longer counted: a gap begins for them here.
    fn leave(&mut self, positions: &mut Positions, counted: &BTreeSet<Fingerprint>) {
        let open = self.gaps.iter().filter(|gap| gap.until.is_none());
        let away: BTreeSet<Fingerprint> = open.flat_map(|gap| gap.lineages.iter().copied()).collect();
        let left: BTreeSet<_> =
            self.known.iter().filter(|it| !counted.contains(it) && !away.contains(it)).copied().collect();
        if left.is_empty() {
            return;
        }
        let group = self.next_group();
        copy(positions, GROUP_ALL, group);
        self.gaps.push(Gap { group, lineages: left, until: None, complete_from: 0, lost_until: 0 });
    }

    /// Metrics that are counted again: their gap ends here.
    fn come_back(
        &mut self,
        positions: &mut Positions,
        counted: &BTreeSet<Fingerprint>,
        here: &[(SourceId, u64)],
        behind: Millis,
    ) {
        for at in 0..self.gaps.len() {
            if self.gaps[at].until.is_some() {
                continue;
            }
            self.split(positions, at, counted);
            let gap = &mut self.gaps[at];
            if gap.lineages.iter().all(|lineage| counted.contains(lineage)) {
                gap.until = Some(here.to_vec());
                gap.complete_from = behind;
            }
        }
    }

    /// Where some of a gap's metrics are among `these` and some are not, those that are not get a gap of their own, equal in all else.
    fn split(&mut self, positions: &mut Positions, at: usize, these: &BTreeSet<Fingerprint>) {
        let (inside, outside): (BTreeSet<_>, BTreeSet<_>) =
            self.gaps[at].lineages.iter().copied().partition(|lineage| these.contains(lineage));
        if inside.is_empty() || outside.is_empty() {
            return;
        }
        let group = self.next_group();
        copy(positions, self.gaps[at].group, group);
        let other = Gap { group, lineages: outside, ..self.gaps[at].clone() };
        self.gaps.push(other);
        self.gaps[at].lineages = inside;
    }

    /// Drops what the log no longer has anything of: it stays a gap for good, or nobody remembers that the metric ever was.
    fn forget(&mut self, positions: &mut Positions, change: &Change<'_>) {
        let first: BTreeMap<SourceId, u64> = change.first.iter().copied().collect();
        let gone = |at: &(SourceId, u64)| at.1 <= first.get(&at.0).copied().unwrap_or(0);
        for gap in std::mem::take(&mut self.gaps) {
            let ends = gap.until.clone().unwrap_or_else(|| ends(positions, gap.group));
            if !ends.iter().all(gone) {
                self.gaps.push(gap);
                continue;
            }
            positions.retain(|(group, _), _| *group != gap.group);
            for lineage in gap.lineages {
                if gap.until.is_some() {
                    self.lower(lineage, gap.complete_from);
                } else {
                    self.known.remove(&lineage);
                    self.complete_from.remove(&lineage);
                }
            }
        }
    }

    fn lower(&mut self, lineage: Fingerprint, complete_from: Millis) {
        if complete_from > 0 {
            let known = self.complete_from.entry(lineage).or_default();
            *known = (*known).max(complete_from);
        }
    }

    fn next_group(&mut self) -> StateGroup {
        self.last_group += 1;
        self.last_group
    }

    /// Gaps that end, and all of whose metrics are wanted.
    pub fn to_fill(&self) -> impl Iterator<Item = &Gap> {
        self.gaps.iter().filter(|gap| gap.until.is_some() && gap.lineages.is_subset(&self.wanted))
    }

    pub fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    pub fn gap(&self, group: StateGroup) -> Option<&Gap> {
        self.gaps.iter().find(|gap| gap.group == group)
    }

    /// The log no longer had what came before minutes from `until` on.
    pub fn lost(&mut self, group: StateGroup, until: Millis) {
        if let Some(gap) = self.gaps.iter_mut().find(|gap| gap.group == group) {
            gap.lost_until = gap.lost_until.max(until);
        }
    }

    /// Takes note that positions of this group have moved: a gap that is filled is none any more.
    pub fn moved(&mut self, positions: &mut Positions, group: StateGroup) {
        let Some(at) = self.gaps.iter().position(|gap| gap.group == group) else { return };
        let reached = |(source, until): &(SourceId, u64)| {
            *until == 0 || positions.get(&(group, *source)).is_some_and(|(next, _)| next >= until)
        };
        if self.gaps[at].until.as_ref().is_some_and(|until| until.iter().all(reached)) {
            let gap = self.gaps.remove(at);
            positions.retain(|(of, _), _| *of != group);
            gap.lineages.iter().for_each(|lineage| self.lower(*lineage, gap.lost_until));
        }
    }

    /// How far back these are complete together.
    pub fn coverage(&self, lineages: &[Fingerprint]) -> Coverage {
        let of_these = |gap: &&Gap| lineages.iter().any(|lineage| gap.lineages.contains(lineage));
        let behind_gaps = self.gaps.iter().filter(of_these).map(|gap| gap.complete_from);
        let behind_lost = lineages.iter().filter_map(|lineage| self.complete_from.get(lineage).copied());
        let complete_from = behind_gaps.chain(behind_lost).max().unwrap_or(0);
        Coverage { complete_from, filling: self.to_fill().any(|gap| of_these(&gap)) }
    }
}

fn ends(positions: &Positions, group: StateGroup) -> Vec<(SourceId, u64)> {
    of(positions, group).map(|(source, (next, _))| (source, next)).collect()
}

fn newest(positions: &Positions, group: StateGroup) -> Millis {
    of(positions, group).map(|(_, (_, arrival))| arrival).max().unwrap_or(0)
}

fn of(positions: &Positions, group: StateGroup) -> impl Iterator<Item = (SourceId, (u64, Millis))> {
    positions.range((group, SourceId::MIN)..=(group, SourceId::MAX)).map(|(&(_, source), &at)| (source, at))
}

fn copy(positions: &mut Positions, from: StateGroup, to: StateGroup) {
    let copies: Vec<_> = of(positions, from).map(|(source, at)| ((to, source), at)).collect();
    positions.extend(copies);
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Fingerprint = Fingerprint(1);
    const B: Fingerprint = Fingerprint(2);
    const C: Fingerprint = Fingerprint(3);

    struct Told {
        ledger: Ledger,
        positions: Positions,
    }

    impl Told {
        /// The state stands at `next` in both sources.
        fn at(&mut self, next: u64) -> &mut Self {
            self.positions.extend([((GROUP_ALL, 0), (next, next as Millis)), ((GROUP_ALL, 1), (next, 5))]);
            self
        }

        fn counts(&mut self, counted: &[Fingerprint], wanted: &[Fingerprint], first: u64) -> &mut Self {
            let (counted, wanted) = (counted.iter().copied().collect(), wanted.iter().copied().collect());
            let first = [(0, first), (1, first)];
            let change = Change { counted: &counted, wanted: &wanted, first: &first, ahead_ms: 0 };
            self.ledger.change(&mut self.positions, &change);
            self
        }

        fn fill(&mut self, group: StateGroup, next: u64) {
            self.positions.extend([((group, 0), (next, 1)), ((group, 1), (next, 1))]);
            self.ledger.moved(&mut self.positions, group);
        }

        /// Of each gap to fill: its metrics, from where to where in source 0.
        fn gaps(&self) -> Vec<(Vec<Fingerprint>, u64, u64)> {
            let from = |gap: &Gap| self.positions.get(&(gap.group, 0)).map_or(0, |at| at.0);
            let until = |gap: &Gap| gap.until.as_ref().map_or(0, |until| until[0].1);
            let gap = |gap: &Gap| (gap.lineages.iter().copied().collect(), from(gap), until(gap));
            self.ledger.to_fill().map(gap).collect()
        }

        fn group(&self, of: Fingerprint) -> StateGroup {
            self.ledger.gaps.iter().find(|gap| gap.lineages.contains(&of)).unwrap().group
        }
    }

    fn told() -> Told {
        let mut told = Told { ledger: Ledger::default(), positions: Positions::new() };
        told.counts(&[A], &[A], 0);
        told
    }

    #[test]
    fn a_new_metric_lacks_what_was_counted_before_it() {
        let mut told = told();
        assert!(told.gaps().is_empty(), "it was there when the log began");
        told.at(100).counts(&[A, B, C], &[B], 0);
        assert_eq!(told.gaps(), [(vec![B], 0, 100)], "and C, which does not want it, in a gap of its own");
        assert_eq!(told.ledger.coverage(&[B]), Coverage { complete_from: MINUTE_MS, filling: true });
        assert_eq!(told.ledger.coverage(&[A]), Coverage::default());
        told.fill(told.group(B), 60);
        assert_eq!(told.gaps(), [(vec![B], 60, 100)]);
        told.fill(told.group(B), 100);
        assert!(told.gaps().is_empty());
        assert_eq!(told.ledger.coverage(&[B]), Coverage::default());
        // Marked later: there is still everything to fill.
        told.at(150).counts(&[A, B, C], &[B, C], 0);
        assert_eq!(told.gaps(), [(vec![C], 0, 100)]);
    }

    #[test]
    fn a_removed_metric_stops_being_filled_and_goes_on_when_it_is_back() {
        let mut told = told();
        told.at(100).counts(&[A, B, C], &[B, C], 0);
        told.fill(told.group(B), 40);
        told.at(150).counts(&[A, C], &[C], 0);
        assert_eq!(told.gaps(), [(vec![C], 40, 100)]);
        told.fill(told.group(C), 70);
        told.at(200).counts(&[A, B, C], &[B, C], 0);
        let mut gaps = told.gaps();
        gaps.sort();
        // From where it was left, and what came while it was away.
        assert_eq!(gaps, [(vec![B], 40, 100), (vec![B], 150, 200), (vec![C], 70, 100)]);
    }

    #[test]
    fn what_the_log_has_lost_stays_a_gap() {
        let mut told = told();
        told.at(100).counts(&[A, B], &[B], 30);
        told.ledger.lost(told.group(B), 7 * MINUTE_MS);
        let kept = serde_json::to_string(&told.ledger).unwrap();
        assert_eq!(serde_json::from_str::<Ledger>(&kept).unwrap(), told.ledger);
        told.fill(told.group(B), 100);
        assert_eq!(told.ledger.coverage(&[B]), Coverage { complete_from: 7 * MINUTE_MS, filling: false });
        // Gone for longer than the log reaches back: as if it had never been.
        told.at(200).counts(&[A], &[], 100).at(300).counts(&[A], &[], 200).at(400).counts(&[A, B], &[B], 250);
        assert_eq!(told.gaps(), [(vec![B], 0, 400)]);
    }

    #[test]
    fn state_from_before_the_ledger_is_taken_as_it_is() {
        let mut told = told();
        told.at(100);
        let counted = BTreeSet::from([A, B]);
        let change = Change { counted: &counted, wanted: &counted, first: &[], ahead_ms: 0 };
        told.ledger = Ledger::adopt(&told.positions, &change);
        told.counts(&[A, B], &[A, B], 0);
        assert!(told.gaps().is_empty());
        assert_eq!(told.ledger.coverage(&[B]), Coverage { complete_from: MINUTE_MS, filling: false });
    }
}
