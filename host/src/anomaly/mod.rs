//! Anomaly rules: built-in ones, and the judge that calls a rule or a plugin. Does not know where points come from.

mod absent;
mod memo;
mod zscore;

use std::ops::Range;
use std::sync::Arc;

pub use memo::VerdictMemo;

use crate::catalog::definitions::RuleKind;
use crate::engine::extension::Verdict;
use crate::time::Millis;

/// One series at one step, with as much before the judged points as the rule looks back.
pub struct Points<'a> {
    pub labels: &'a [Arc<str>],
    /// Time of step 0.
    pub from: Millis,
    pub step_ms: Millis,
    /// Steps that have a point, ascending, and their values; NaN is null.
    pub steps: &'a [u32],
    pub values: &'a [f64],
    /// Steps whose window has an event, ascending, and how many steps a window is long; only where a rule judges by them.
    pub events: &'a [u32],
    pub window_steps: usize,
    /// Steps before this one are closed.
    pub closed: usize,
    /// What is not closed can only grow: it is judged against the upper bound alone.
    pub grows: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    pub step: u32,
    pub value: f64,
    /// Bounds that do not exist are infinite, an expectation that does not exist is NaN.
    pub verdict: Verdict,
}

impl Points<'_> {
    fn iter(&self) -> impl DoubleEndedIterator<Item = (usize, f64)> {
        let points = self.steps.iter().map(|&step| step as usize).zip(self.values.iter().copied());
        points.filter(|(_, value)| !value.is_nan())
    }

    fn time(&self, step: usize) -> Millis {
        self.from + step as Millis * self.step_ms
    }
}

/// Verdicts on the points at `range` of the series' steps, ascending; points the rule says nothing about are left out. A plugin
/// is asked about at most `calls_max` points that it has not judged yet.
pub fn judge(
    rule: &RuleKind,
    points: &Points,
    range: Range<usize>,
    memo: &VerdictMemo,
    calls_max: usize,
) -> Vec<Judged> {
    let mut judged = match rule {
        RuleKind::Zscore { threshold, baseline_ms } => zscore::judge(points, range, *threshold, *baseline_ms),
        RuleKind::Threshold { above, below } => judge_threshold(points, range, *above, *below),
        RuleKind::Absent { for_ms, baseline_ms } => absent::judge(points, range, *for_ms, *baseline_ms),
        RuleKind::Plugin { detector, .. } => memo.judge(detector, points, range, calls_max),
    };
    if points.grows {
        for judged in judged.iter_mut().filter(|judged| judged.step as usize >= points.closed) {
            judged.verdict.anomalous &= judged.value > judged.verdict.upper;
        }
    }
    judged
}

fn judge_threshold(points: &Points, range: Range<usize>, above: Option<f64>, below: Option<f64>) -> Vec<Judged> {
    let (lower, upper) = (below.unwrap_or(f64::NEG_INFINITY), above.unwrap_or(f64::INFINITY));
    let inside = points.iter().filter(|(step, _)| range.contains(step));
    inside
        .map(|(step, value)| {
            let score = if value > upper { value - upper } else { (value - lower).min(0.0) };
            let verdict = Verdict { expected: f64::NAN, lower, upper, score, anomalous: score != 0.0 };
            Judged { step: step as u32, value, verdict }
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::engine::extension::Detector;
    use crate::time::{HOUR_MS, MINUTE_MS};

    pub fn points<'a>(steps: &'a [u32], values: &'a [f64], closed: usize, grows: bool) -> Points<'a> {
        Points { labels: &[], from: 0, step_ms: MINUTE_MS, steps, values, events: &[], window_steps: 1, closed, grows }
    }

    fn anomalous(rule: &RuleKind, points: &Points) -> Vec<u32> {
        let judged = judge(rule, points, 0..usize::MAX, &VerdictMemo::default(), 9);
        judged.iter().filter(|judged| judged.verdict.anomalous).map(|judged| judged.step).collect()
    }

    #[test]
    fn threshold() {
        let (steps, values) = ([0, 1, 2, 4, 5], [1.0, 5.0, 5.1, f64::NAN, 0.9]);
        let rule = |above, below| RuleKind::Threshold { above, below };
        let cases = [
            (rule(Some(5.0), None), 9, true, vec![2]),
            (rule(Some(5.0), Some(1.0)), 9, true, vec![2, 5]),
            (rule(Some(5.0), Some(1.0)), 5, true, vec![2]),
            (rule(Some(5.0), Some(1.0)), 5, false, vec![2, 5]),
            (rule(Some(5.0), None), 0, true, vec![2]),
        ];
        for (rule, closed, grows, expected) in cases {
            assert_eq!(
                anomalous(&rule, &points(&steps, &values, closed, grows)),
                expected,
                "{} {closed}",
                rule.label()
            );
        }
    }

    /// Expects the value before; counts its calls.
    struct Before(AtomicUsize);

    impl Detector for Before {
        fn lookback_ms(&self) -> Millis {
            2 * MINUTE_MS
        }

        fn judge(&self, step_ms: Millis, points: &[(Millis, f64)]) -> Option<Verdict> {
            self.0.fetch_add(1, Ordering::Relaxed);
            let [.., (before, expected), (t, value)] = points else { return None };
            assert!(points.len() <= 3 && t - before <= 2 * step_ms);
            let anomalous = value != expected;
            Some(Verdict {
                expected: *expected,
                lower: *expected,
                upper: *expected,
                score: value - expected,
                anomalous,
            })
        }
    }

    #[test]
    fn plugins_are_asked_once_for_each_value() {
        let before = Arc::new(Before(AtomicUsize::new(0)));
        let rule = RuleKind::Plugin { plugin: "before".into(), detector: before.clone() };
        let memo = VerdictMemo::default();
        let calls_max = std::cell::Cell::new(9);
        let steps = [0, 1, 2, 4, 8];
        let ask = |values: &[f64], closed| {
            let judged = judge(&rule, &points(&steps, values, closed, true), 1..9, &memo, calls_max.get());
            let verdicts: Vec<_> = judged.iter().map(|judged| (judged.step, judged.verdict.anomalous)).collect();
            (verdicts, before.0.swap(0, Ordering::Relaxed))
        };
        // Step 8 sees nothing before it.
        assert_eq!(ask(&[1.0, 1.0, 2.0, 2.0, 3.0], 9), (vec![(1, false), (2, true), (4, false)], 4));
        assert_eq!(ask(&[1.0, 1.0, 2.0, 2.0, 3.0], 9), (vec![(1, false), (2, true), (4, false)], 0));
        assert_eq!(ask(&[1.0, 1.0, 2.0, 7.0, 3.0], 9), (vec![(1, false), (2, true), (4, true)], 1));
        // The newest first, the rest later; what is known stays.
        calls_max.set(1);
        assert_eq!(ask(&[1.0, 5.0, 6.0, 7.0, 3.0], 9), (vec![(2, true), (4, true)], 1));
        assert_eq!(ask(&[1.0, 5.0, 6.0, 7.0, 3.0], 9), (vec![(1, true), (2, true), (4, true)], 1));
        calls_max.set(9);
        assert_eq!(ask(&[1.0, 1.0, 2.0, 7.0, 3.0], 9), (vec![(1, false), (2, true), (4, true)], 2));
        // What is open and below is not judged yet.
        assert_eq!(ask(&[1.0, 1.0, 2.0, 1.0, 3.0], 4), (vec![(1, false), (2, true), (4, false)], 1));
    }

    #[test]
    fn zscore_is_the_sample_deviation_of_the_closed_points_before() {
        let rule = RuleKind::Zscore { threshold: 2.0, baseline_ms: 2 * HOUR_MS };
        let values: Vec<f64> = (0..600).map(|n| f64::from(n * 7919 % 83) + if n == 300 { 1e9 } else { 0.0 }).collect();
        let (mut steps, mut kept) = (Vec::new(), Vec::new());
        for (step, value) in values.iter().enumerate().filter(|(step, _)| step % 5 != 3) {
            steps.push(step as u32);
            kept.push(if step % 50 == 1 { f64::NAN } else { *value });
        }
        let judged = judge(&rule, &points(&steps, &kept, 590, true), 100..600, &VerdictMemo::default(), 9);
        let mut expected_count = 0;
        for (&step, &value) in steps.iter().zip(&kept).filter(|(step, value)| **step >= 100 && !value.is_nan()) {
            let before =
                steps.iter().zip(&kept).filter(|(s, v)| **s < step && **s + 120 >= step && **s < 590 && !v.is_nan());
            let before: Vec<f64> = before.map(|(_, value)| *value).collect();
            let mean = before.iter().sum::<f64>() / before.len() as f64;
            let deviation = (before.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (before.len() - 1) as f64).sqrt();
            let found = judged.iter().find(|judged| judged.step == step).unwrap();
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b.abs().max(1.0);
            assert!(
                near(found.verdict.expected, mean) && near(found.verdict.score, (value - mean) / deviation),
                "{step}"
            );
            assert!(
                near(found.verdict.upper, mean + 2.0 * deviation) && near(found.verdict.lower, mean - 2.0 * deviation)
            );
            expected_count += 1;
        }
        assert_eq!(judged.len(), expected_count);
    }

    #[test]
    fn zscore_needs_sixty_points_that_differ() {
        let rule = RuleKind::Zscore { threshold: 2.0, baseline_ms: 24 * HOUR_MS };
        let steps: Vec<u32> = (0..200).collect();
        let judged_from = |values: &[f64]| {
            let judged = judge(&rule, &points(&steps, values, 200, true), 0..200, &VerdictMemo::default(), 9);
            judged.first().map(|judged| judged.step)
        };
        let wave: Vec<f64> = (0..200).map(|n| f64::from(n % 2)).collect();
        assert_eq!(judged_from(&wave), Some(60));
        let mut flat = vec![0.1; 200];
        assert_eq!(judged_from(&flat), None);
        flat[100] = 0.2;
        assert_eq!(judged_from(&flat), Some(101), "the point itself is no part of its baseline");
    }

    #[test]
    fn open_points_that_grow_are_judged_upwards_only() {
        let rule = RuleKind::Zscore { threshold: 2.0, baseline_ms: 24 * HOUR_MS };
        let steps: Vec<u32> = (0..=100).collect();
        for (last, closed, grows, expected) in [
            (0.0, 100, true, vec![]),
            (0.0, 100, false, vec![100]),
            (0.0, 101, true, vec![100]),
            (99.0, 100, true, vec![100]),
            (10.5, 101, true, vec![]),
        ] {
            let mut values: Vec<f64> = (0..=100).map(|n| 10.0 + f64::from(n % 2)).collect();
            values[100] = last;
            assert_eq!(anomalous(&rule, &points(&steps, &values, closed, grows)), expected, "{last} {closed} {grows}");
        }
    }
}
