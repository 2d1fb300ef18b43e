//! Silence: no event for so long, in a series that had some in the baseline before. Knows in which steps there was an event.

use std::ops::Range;

use super::{Judged, Points};
use crate::engine::extension::Verdict;
use crate::time::{MINUTE_MS, Millis};

/// Verdicts on closed steps, and on open ones that have an event: its silence is over. A series that was silent for the whole
/// baseline is forgotten. The score is how many minutes it has been silent.
pub fn judge(points: &Points, range: Range<usize>, for_ms: Millis, baseline_ms: Millis) -> Vec<Judged> {
    let steps = |ms: Millis| (ms / points.step_ms).max(1) as usize;
    // Windows without an event that make so long a silence: each looks back over all of its own.
    let quiet_min = (steps(for_ms) + 1).saturating_sub(points.window_steps).max(1);
    let forgotten = quiet_min.saturating_add(steps(baseline_ms));
    let mut events = points.events.iter().map(|&step| step as usize).peekable();
    let mut last = None;
    let mut judged = Vec::new();
    for step in range {
        while let Some(event) = events.next_if(|event| *event <= step) {
            last = Some(event);
        }
        let Some(quiet) = last.map(|last| step - last) else { continue };
        if quiet >= forgotten || (quiet > 0 && step >= points.closed) {
            continue;
        }
        let silent = if quiet == 0 { 0 } else { quiet + points.window_steps - 1 };
        let at = points.steps.binary_search(&(step as u32));
        let verdict = Verdict {
            expected: f64::NAN,
            lower: f64::NEG_INFINITY,
            upper: f64::INFINITY,
            score: (silent as Millis * points.step_ms / MINUTE_MS) as f64,
            anomalous: quiet >= quiet_min,
        };
        judged.push(Judged { step: step as u32, value: at.map_or(f64::NAN, |at| points.values[at]), verdict });
    }
    judged
}

#[cfg(test)]
mod tests {
    use super::super::tests::points;
    use super::*;

    /// `e` a step with an event in its window, `.` none; what is behind `/` is open. Gives a letter for each step: `n` normal,
    /// `A` anomalous, `-` no verdict.
    fn verdicts(steps: &str, window_steps: usize, for_min: Millis, baseline_min: Millis) -> String {
        let closed = steps.find('/').unwrap();
        let steps = steps.replace('/', "");
        let events: Vec<u32> = (0..).zip(steps.chars()).filter(|(_, c)| *c == 'e').map(|(step, _)| step).collect();
        let points = Points { events: &events, window_steps, ..points(&[], &[], closed, true) };
        let judged = judge(&points, 0..steps.len(), for_min * MINUTE_MS, baseline_min * MINUTE_MS);
        let letter = |step: usize| match judged.iter().find(|judged| judged.step as usize == step) {
            None => '-',
            Some(judged) if judged.verdict.anomalous => 'A',
            Some(_) => 'n',
        };
        (0..steps.len()).map(letter).collect()
    }

    #[test]
    fn silence() {
        for (steps, window, for_min, baseline, expected) in [
            ("eee.../.", 1, 3, 60, "nnnnnA-"),
            ("eee..../.", 1, 3, 60, "nnnnnAA-"),
            ("eee...e/e", 1, 3, 60, "nnnnnAnn"),
            // An event in the open minute ends it.
            ("e..../e", 1, 2, 60, "nnAAAn"),
            // What was never there is not missing, and what is gone for long is not missed.
            ("....e./", 1, 1, 60, "----nA"),
            ("e......../", 1, 2, 4, "nnAAAA---"),
            // A window of three minutes has had no event for three as soon as it is empty.
            ("ee...../", 3, 3, 60, "nnAAAAA"),
            ("ee...../", 3, 5, 60, "nnnnAAA"),
            ("......./.", 1, 1, 60, "--------"),
            ("/e..", 1, 1, 60, "n--"),
        ] {
            assert_eq!(verdicts(steps, window, for_min, baseline), expected, "{steps} {window} {for_min} {baseline}");
        }
    }

    #[test]
    fn the_score_is_the_silence() {
        let events = [0, 1];
        let shown = [0, 1, 2, 3];
        let points = Points { events: &events, window_steps: 3, ..points(&shown, &[5.0, 2.0, 0.0, 0.0], 9, true) };
        let judged = judge(&points, 0..6, 3 * MINUTE_MS, 60 * MINUTE_MS);
        let found: Vec<_> = judged.iter().map(|judged| (judged.value, judged.verdict.score)).collect();
        assert_eq!(found[..4], [(5.0, 0.0), (2.0, 0.0), (0.0, 3.0), (0.0, 4.0)]);
        assert!(found[4].0.is_nan(), "without a point there is no value");
    }
}
