//! Detector: is a point unlike what the series does at this time?
//!
//! The point is compared with the points around the same time of earlier periods (yesterday, the day before) when there
//! are enough of them, else with the most recent points. Either way the comparison is robust, so that earlier incidents
//! do not widen the band: expected is the median, the spread is 1.4826 times the median absolute deviation (which
//! equals the standard deviation for normal noise), and the score is the distance in spreads: Hampel's identifier
//! (Hampel, "The influence curve and its role in robust estimation", JASA 69, 1974), with the fallback of Iglewicz and
//! Hoaglin ("How to Detect and Handle Outliers", ASQC 1993) to the mean absolute deviation where more than half of the
//! points are equal. Where all are equal nothing is said. Counts (whole numbers) scatter by at least their square root,
//! however alike a few of them look: a country's twenty visitors are soon thirty, and that is no incident.
//!
//! It follows neither a trend from period to period nor holidays: a level that grows by a third a day is outside the
//! band of the days before, and said to be.
//!
//! | config | | |
//! |---|---|---|
//! | `period` | `"1d"` | the length of a season; `"7d"` where weekdays differ |
//! | `periods` | 2 | how many earlier periods are looked at, 1 to 14 |
//! | `around` | `"5m"` | points that far before and after the same time count as "the same time"; at least 2 steps |
//! | `recent` | `"1h"` | without earlier periods: compare with the points in this span before; at least 20 steps |
//! | `threshold` | 5.0 | a point further from expected, in spreads, is an anomaly; every minute of many series is judged, so low ones cry wolf |

use std::time::Duration;

use serde::Deserialize;
use tidemark_plugin::{Config, Detector, Point, Verdict, Window, export_detector, span};

/// Fewer points than this are too few to judge by.
const POINTS_MIN: usize = 8;
const PERIODS_MAX: u32 = 14;
/// So that coarse steps have neighbours too.
const AROUND_STEPS_MIN: i64 = 2;
const RECENT_STEPS_MIN: i64 = 20;
/// Standard deviations of a normal distribution in a median, and in a mean, absolute deviation.
const MEDIAN_DEVIATION_SCALE: f64 = 1.4826;
const MEAN_DEVIATION_SCALE: f64 = 1.253_314;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AsTyped {
    period: String,
    periods: u32,
    around: String,
    recent: String,
    threshold: f64,
}

impl Default for AsTyped {
    fn default() -> Self {
        AsTyped { period: "1d".into(), periods: 2, around: "5m".into(), recent: "1h".into(), threshold: 5.0 }
    }
}

struct Seasonal {
    period: Duration,
    periods: u32,
    around: Duration,
    recent: Duration,
    threshold: f64,
}

impl Detector for Seasonal {
    fn new(config: &Config) -> Result<Self, String> {
        let AsTyped { period, periods, around, recent, threshold } = config.read()?;
        let read = |key: &str, text: &str| span(text).map_err(|error| format!("config: {key}: {error}"));
        let (period, around, recent) = (read("period", &period)?, read("around", &around)?, read("recent", &recent)?);
        if period.is_zero() || around * 2 >= period {
            return Err("config: around must be less than half of period".to_owned());
        }
        if !(1..=PERIODS_MAX).contains(&periods) {
            return Err(format!("config: periods must be from 1 to {PERIODS_MAX}, not {periods}"));
        }
        if !(threshold > 0.0 && threshold.is_finite()) {
            return Err(format!("config: threshold must be more than 0, not {threshold}"));
        }
        Ok(Seasonal { period, periods, around, recent, threshold })
    }

    fn history(&self) -> Duration {
        (self.period * self.periods + self.around).max(self.recent)
    }

    fn judge(&mut self, window: &Window) -> Option<Verdict> {
        let last = window.last;
        let step_ms = i64::try_from(window.step_ms).ok()?;
        let mut sample = self.same_time_before(&window.past, last.t, step_ms);
        if sample.len() < POINTS_MIN {
            let recent_ms = millis(self.recent).max(RECENT_STEPS_MIN.saturating_mul(step_ms));
            sample = between(&window.past, last.t.saturating_sub(recent_ms), last.t.saturating_sub(1)).collect();
        }
        if sample.len() < POINTS_MIN || !last.value.is_finite() {
            return None;
        }
        let (expected, spread) = center_and_spread(&mut sample)?;
        let spread = spread.max(counting_noise(&sample, expected));
        let score = (last.value - expected) / spread;
        let margin = self.threshold * spread;
        Some(Verdict {
            expected,
            lower: expected - margin,
            upper: expected + margin,
            score,
            anomalous: score.abs() > self.threshold,
        })
    }
}

export_detector!(Seasonal);

impl Seasonal {
    fn same_time_before(&self, past: &[Point], t: i64, step_ms: i64) -> Vec<f64> {
        let around_ms = millis(self.around).max(AROUND_STEPS_MIN.saturating_mul(step_ms));
        let mut sample = Vec::new();
        for back in (1..=self.periods).rev() {
            let then = t.saturating_sub(millis(self.period * back));
            sample.extend(between(past, then.saturating_sub(around_ms), then.saturating_add(around_ms)));
        }
        sample
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// The values at times from `from` to `to`, both included.
fn between(past: &[Point], from: i64, to: i64) -> impl Iterator<Item = f64> {
    let start = past.partition_point(|point| point.t < from);
    let end = past.partition_point(|point| point.t <= to).max(start);
    past[start..end].iter().map(|point| point.value).filter(|value| value.is_finite())
}

/// Median and spread; none where the points are all equal (or too large to tell apart).
fn center_and_spread(sample: &mut [f64]) -> Option<(f64, f64)> {
    let center = median(sample);
    let mut distances: Vec<f64> = sample.iter().map(|value| (value - center).abs()).collect();
    let by_median = MEDIAN_DEVIATION_SCALE * median(&mut distances);
    let by_mean = MEAN_DEVIATION_SCALE * distances.iter().sum::<f64>() / distances.len() as f64;
    let spread = if by_median > 0.0 { by_median } else { by_mean };
    (spread > 0.0 && spread.is_finite()).then_some((center, spread))
}

/// The standard deviation that chance alone gives to a count of this size (Poisson's); 0 where the values are no counts.
fn counting_noise(sample: &[f64], expected: f64) -> f64 {
    let counts = sample.iter().all(|value| *value >= 0.0 && value.fract() == 0.0);
    if counts { expected.max(1.0).sqrt() } else { 0.0 }
}

/// Of at least one value; reorders them.
fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { values[middle - 1] / 2.0 + values[middle] / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_plugin::testing::detector_cases;

    const MINUTE_MS: i64 = 60_000;
    const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

    #[test]
    fn cases() {
        detector_cases::<Seasonal>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases.toml"));
    }

    /// A shop's day: a wave of a day's length and some even noise, from `days` before to the judged point.
    fn day_wave(days: i64, judged: f64) -> Window {
        let value = |t: i64| {
            let phase = std::f64::consts::TAU * (t % DAY_MS) as f64 / DAY_MS as f64;
            1000.0 + 800.0 * phase.sin() + ((t / MINUTE_MS * 7919) % 21 - 10) as f64
        };
        let past = (0..days * 1440).map(|i| i * MINUTE_MS).map(|t| Point { t, value: value(t) }).collect();
        let t = days * DAY_MS;
        Window { step_ms: MINUTE_MS as u64, past, last: Point { t, value: judged } }
    }

    #[track_caller]
    fn judge(config: &str, window: &Window) -> Option<Verdict> {
        Seasonal::new(&Config::new(config)).unwrap().judge(window)
    }

    #[test]
    fn the_same_time_of_earlier_days_is_expected() {
        let usual = judge("{}", &day_wave(2, 1000.0)).unwrap();
        assert!(!usual.anomalous && (usual.expected - 1000.0).abs() < 15.0, "{usual:?}");
        let outage = judge("{}", &day_wave(2, 700.0)).unwrap();
        assert!(outage.anomalous && outage.score < -3.0 && outage.lower > 700.0, "{outage:?}");
    }

    #[test]
    fn an_incident_yesterday_does_not_widen_the_band() {
        let calm = judge("{}", &day_wave(2, 1000.0)).unwrap();
        let mut window = day_wave(2, 1000.0);
        let yesterday = window.past.iter_mut().filter(|point| (point.t - DAY_MS).abs() <= MINUTE_MS);
        yesterday.for_each(|point| point.value = 50_000.0);
        let after = judge("{}", &window).unwrap();
        assert!((after.upper - after.lower) < 2.0 * (calm.upper - calm.lower), "{calm:?} {after:?}");
    }

    #[test]
    fn counts_scatter_by_their_square_root_at_least() {
        let window = |scale: f64, judged: f64| {
            let point = |i: i64| Point { t: i * MINUTE_MS, value: scale * (24 + i % 2) as f64 };
            let past: Vec<Point> = (0..60).map(point).collect();
            Window { step_ms: MINUTE_MS as u64, past, last: Point { t: 60 * MINUTE_MS, value: scale * judged } }
        };
        assert!(!judge("{}", &window(1.0, 34.0)).unwrap().anomalous, "24 visitors are soon 34");
        assert!(judge("{}", &window(1.0, 54.0)).unwrap().anomalous, "but not 54");
        assert!(judge("{}", &window(0.01, 34.0)).unwrap().anomalous, "0.24 is no count");
    }

    #[test]
    fn without_earlier_days_the_last_hour_is_expected() {
        let mut window = day_wave(2, 990.0);
        let first = window.last.t - 60 * MINUTE_MS;
        window.past.retain(|point| point.t >= first);
        let verdict = judge("{}", &window).unwrap();
        assert!((700.0..1000.0).contains(&verdict.expected), "{verdict:?}");
        window.past.truncate(7);
        assert_eq!(judge("{}", &window), None, "too few");
    }

    #[test]
    fn history_reaches_the_first_point_it_reads() {
        let history = |config: &str| Seasonal::new(&Config::new(config)).unwrap().history();
        assert_eq!(history("{}"), Duration::from_secs(2 * 86_400 + 300));
        assert_eq!(history(r#"{"period":"20m","recent":"6h"}"#), Duration::from_secs(6 * 3600));
    }

    #[test]
    fn extreme_windows_do_not_panic() {
        let points = |t: i64| Point { t, value: f64::MAX };
        let past: Vec<Point> = (0..50).map(|i| points(i64::MIN + i)).collect();
        for t in [i64::MIN, 0, i64::MAX] {
            for step_ms in [0, 1, u64::MAX] {
                judge("{}", &Window { step_ms, past: past.clone(), last: points(t) });
            }
        }
    }

    #[test]
    fn mistakes_are_named() {
        let error = |config: &str| Seasonal::new(&Config::new(config)).err().unwrap();
        assert_eq!(
            error(r#"{"period":"a day"}"#),
            "config: period: \"a day\" is not a span of time such as \"90s\", \"5m\", \"24h\" or \"1d\""
        );
        assert_eq!(error(r#"{"period":"10m"}"#), "config: around must be less than half of period");
        assert_eq!(error(r#"{"periods":0}"#), "config: periods must be from 1 to 14, not 0");
        assert_eq!(error(r#"{"threshold":0}"#), "config: threshold must be more than 0, not 0");
        assert_eq!(
            error(r#"{"treshold":2}"#),
            "config: unknown field `treshold`, expected one of `period`, `periods`, `around`, `recent`, `threshold`"
        );
    }
}
