//! What makes two points equal: exact for counts, minima, maxima and sketches, within 1e-9 relative for sums and averages.

use anyhow::{Result, bail};
use serde_json::Value;

/// Both in the order in which they came.
pub fn compare(expected: &[Value], actual: &[Value]) -> Result<()> {
    for index in 0..expected.len().max(actual.len()) {
        match (expected.get(index), actual.get(index)) {
            (Some(expected), Some(actual)) if equal(expected, actual) => {}
            (Some(expected), Some(actual)) => bail!("point {}\nexpected {expected}\n     got {actual}", index + 1),
            (Some(expected), None) => bail!("point {} is missing: {expected}", index + 1),
            (None, Some(actual)) => bail!("point {} is too many: {actual}", index + 1),
            (None, None) => {}
        }
    }
    Ok(())
}

fn equal(expected: &Value, actual: &Value) -> bool {
    ["metric", "time", "labels"].iter().all(|member| expected[*member] == actual[*member])
        && values_equal(&expected["value"], &actual["value"])
}

/// A whole number is met exactly; a fraction within the bound, since sums in another order round otherwise.
pub fn values_equal(expected: &Value, actual: &Value) -> bool {
    match (expected.as_f64(), actual.as_f64()) {
        (Some(expected), Some(actual)) if expected.fract() != 0.0 => {
            (expected - actual).abs() <= expected.abs().max(actual.abs()) * 1e-9
        }
        (Some(expected), Some(actual)) => expected == actual,
        _ => expected == actual,
    }
}
