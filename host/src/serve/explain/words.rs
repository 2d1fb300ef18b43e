//! What is known of a point as one sentence for people.

use super::Point;
use super::movers::Moves;
use crate::catalog::definitions::{MetricDefinition, RuleKind};
use crate::time::MINUTE_MS;

pub fn sentence(metric: &MetricDefinition, point: &Point, moves: &Moves, corrections: u64) -> String {
    let unit = metric.unit.as_deref();
    let Some(value) = point.value else {
        return "There is no value: no event counts here, or it cannot be computed".to_owned()
            + &ends(point, corrections);
    };
    let mut told = match &point.verdict {
        Some((rule, judged)) => {
            let verdict = &judged.verdict;
            let where_to = if value >= verdict.expected { "above" } else { "below" };
            let inside = if verdict.anomalous { "" } else { ", which is no anomaly" };
            match &rule.kind {
                RuleKind::Zscore { .. } => format!("{:.1} σ {where_to} expected{inside}", verdict.score.abs()),
                RuleKind::Threshold { .. } if verdict.score > 0.0 => {
                    format!("{} above the limit of {}", shown(verdict.score, unit), shown(verdict.upper, unit))
                }
                RuleKind::Threshold { .. } if verdict.score < 0.0 => {
                    format!("{} below the limit of {}", shown(-verdict.score, unit), shown(verdict.lower, unit))
                }
                RuleKind::Threshold { .. } => format!("{} is within its limits", shown(value, unit)),
                RuleKind::Absent { for_ms, .. } if verdict.anomalous => {
                    format!("no event for {} min", for_ms / MINUTE_MS)
                }
                RuleKind::Absent { .. } => format!("{}, and events come in", shown(value, unit)),
                RuleKind::Plugin { plugin, .. } => {
                    let expected = shown(verdict.expected, unit);
                    format!("{} is {where_to} the {expected} that {plugin} expects{inside}", shown(value, unit))
                }
            }
        }
        None => against_the_mean(value, moves, unit),
    };
    if let Some(together) = &moves.together {
        let names = together.labels.iter().map(|(name, value)| match value.as_str() {
            Some("") | None => format!("{name} = (none)"),
            Some(value) => format!("{name} = {value}"),
        });
        let share = (together.share * 100.0).round().min(999.0);
        told.push_str(&format!(", {share} % of it from {}", names.collect::<Vec<_>>().join(", ")));
    } else if let (Some(first), true) = (moves.list.first(), moves.total.by().is_some_and(|by| by != 0.0)) {
        told.push_str(&format!(", most of it from {first}"));
    }
    told + &ends(point, corrections)
}

fn against_the_mean(value: f64, moves: &Moves, unit: Option<&str>) -> String {
    match moves.total.expected {
        Some(mean) if mean != 0.0 && value != mean => {
            let percent = ((value - mean) / mean.abs() * 100.0).abs();
            let where_to = if value > mean { "above" } else { "below" };
            format!("{percent:.0} % {where_to} the mean of {} before it", shown(mean, unit))
        }
        Some(mean) => format!("{}, and the mean before it is {}", shown(value, unit), shown(mean, unit)),
        None => format!("{}, and there is nothing before it to compare with", shown(value, unit)),
    }
}

fn ends(point: &Point, corrections: u64) -> String {
    let late = match corrections {
        0 => String::new(),
        1 => "; late events corrected it once".to_owned(),
        times => format!("; late events corrected it {times} times"),
    };
    let open = if point.provisional { "; it may still change" } else { "" };
    format!("{late}{open}.")
}

/// Three digits that say something, with the unit.
fn shown(value: f64, unit: Option<&str>) -> String {
    let (value, unit) = match unit {
        Some("%") => (value * 100.0, " %".to_owned()),
        Some(unit) => (value, format!(" {unit}")),
        None => (value, String::new()),
    };
    let digits = if value == 0.0 { 0 } else { (2 - value.abs().log10().floor() as i32).clamp(0, 9) as usize };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}
