//! The final points as lines of JSON.

use std::io::Write;
use std::ops::Range;

use super::ReplayError;
use crate::catalog::definitions::Active;
use crate::serve::query::replay::{PointValue, event_points};
use crate::store::StateReader;
use crate::time::Minute;

/// Sorted by metric, time and labels.
pub fn write(
    active: &Active,
    reader: &dyn StateReader,
    range: Range<Minute>,
    out: &mut dyn Write,
) -> Result<(), ReplayError> {
    let metrics = &active.definitions.metrics;
    let mut order: Vec<usize> = (0..metrics.len()).collect();
    order.sort_by(|a, b| metrics[*a].name.cmp(&metrics[*b].name));
    for metric in order {
        let definition = &metrics[metric];
        let name = text(&definition.name);
        let keys: Vec<String> = definition.dimensions.iter().map(|dimension| text(dimension)).collect();
        let mut outcome = Ok(());
        let mut line = String::new();
        event_points(active, reader, metric, range.clone(), &mut |time, labels, value| {
            if outcome.is_err() {
                return;
            }
            line.clear();
            line.push_str(&format!("{{\"metric\":{name},\"time\":{time},\"labels\":{{"));
            for (at, (key, label)) in keys.iter().zip(labels).enumerate() {
                let comma = if at > 0 { "," } else { "" };
                line.push_str(&format!("{comma}{key}:{}", text(label)));
            }
            line.push_str(&format!("}},\"value\":{}}}\n", written(value)));
            outcome = out.write_all(line.as_bytes());
        })
        .map_err(|error| ReplayError::Points(error.message))?;
        outcome?;
    }
    Ok(())
}

fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn written(value: PointValue<'_>) -> String {
    match value {
        PointValue::Null => "null".into(),
        PointValue::Number(value) => number(value),
        PointValue::List(list) => list.into(),
    }
}

/// Whole numbers without a fraction, others with as many digits as it takes to read the same number back.
fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        format!("{}", value as i64)
    } else {
        serde_json::Value::from(value).to_string()
    }
}
