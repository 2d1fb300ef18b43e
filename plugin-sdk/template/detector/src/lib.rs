//! Detector: a point is an anomaly when it lies more than `threshold` standard deviations from the mean of the points
//! in the `hours` before it.

use std::time::Duration;

use serde::Deserialize;
use tidemark_plugin::{Config, Detector, Verdict, Window, export_detector};

const POINTS_MIN: usize = 10;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct {{type_name}} {
    threshold: f64,
    hours: u32,
}

impl Default for {{type_name}} {
    fn default() -> Self {
        {{type_name}} { threshold: 3.0, hours: 6 }
    }
}

impl Detector for {{type_name}} {
    fn new(config: &Config) -> Result<Self, String> {
        config.read()
    }

    fn history(&self) -> Duration {
        Duration::from_secs(3600) * self.hours
    }

    fn judge(&mut self, window: &Window) -> Option<Verdict> {
        if window.past.len() < POINTS_MIN {
            return None;
        }
        let count = window.past.len() as f64;
        let mean = window.past.iter().map(|point| point.value).sum::<f64>() / count;
        let squares: f64 = window.past.iter().map(|point| (point.value - mean).powi(2)).sum();
        let deviation = (squares / (count - 1.0)).sqrt();
        if deviation == 0.0 {
            return None;
        }
        let score = (window.last.value - mean) / deviation;
        Some(Verdict {
            expected: mean,
            lower: mean - self.threshold * deviation,
            upper: mean + self.threshold * deviation,
            score,
            anomalous: score.abs() > self.threshold,
        })
    }
}

export_detector!({{type_name}});

#[cfg(test)]
#[test]
fn cases() {
    tidemark_plugin::testing::detector_cases::<{{type_name}}>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases.toml"));
}
