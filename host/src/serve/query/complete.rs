//! How far back a question's points are complete, where a metric was to be filled backwards. Does not know how it is filled.

use super::bind::Bound;
use crate::store::{Coverage, StateReader};
use crate::time::Millis;

/// Of the points at this step; `None`: none of what they are made of was to be filled backwards.
pub fn coverage(reader: &dyn StateReader, bound: &Bound, step_ms: Millis) -> Option<Coverage> {
    let filled = bound.leaves.iter().filter(|leaf| !leaf.backfilled.is_empty());
    filled.fold(None, |so_far, leaf| {
        let of_leaf = reader.coverage(&leaf.backfilled);
        let complete_from = first_point(of_leaf.complete_from, leaf.window_ms, step_ms);
        let so_far: Coverage = so_far.unwrap_or_default();
        Some(Coverage {
            complete_from: complete_from.max(so_far.complete_from),
            filling: of_leaf.filling || so_far.filling,
        })
    })
}

/// The first point whose window begins at or after a minute. 0 stays: nothing is missing.
fn first_point(minute: Millis, window_ms: Millis, step_ms: Millis) -> Millis {
    match minute {
        0 => 0,
        _ => (minute + window_ms.max(step_ms) - step_ms + step_ms - 1).div_euclid(step_ms) * step_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{HOUR_MS, MINUTE_MS};

    #[test]
    fn a_point_is_complete_when_its_window_is() {
        for (minute, window, step, expected) in [
            (0, HOUR_MS, MINUTE_MS, 0),
            (90 * MINUTE_MS, MINUTE_MS, MINUTE_MS, 90 * MINUTE_MS),
            // The point at 94 looks back to 90.
            (90 * MINUTE_MS, 5 * MINUTE_MS, MINUTE_MS, 94 * MINUTE_MS),
            (90 * MINUTE_MS, 5 * MINUTE_MS, HOUR_MS, 2 * HOUR_MS),
            (2 * HOUR_MS, MINUTE_MS, HOUR_MS, 2 * HOUR_MS),
        ] {
            assert_eq!(first_point(minute, window, step), expected, "{minute} {window} {step}");
        }
    }
}
