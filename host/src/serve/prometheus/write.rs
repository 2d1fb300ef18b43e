//! Answers as JSON text in Prometheus' shape: values are strings, timestamps seconds.

use super::evaluate::{Row, Value, ranked};
use super::language::Labels;
use super::params::Times;
use crate::serve::query::answer::{comma, json};
use crate::time::Millis;

const TRUNCATED: &[u8] = b",\"warnings\":[\"results truncated due to limit\"]";

/// `{"status":"success","data":…}`, and whether something was left off.
pub fn success(data: &[u8], truncated: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 100);
    out.extend_from_slice(b"{\"status\":\"success\",\"data\":");
    out.extend_from_slice(data);
    if truncated {
        out.extend_from_slice(TRUNCATED);
    }
    out.push(b'}');
    out
}

/// The answer to `query`. `ordered`: by value, the largest first or last; else by labels.
pub fn instant(value: Value, at: Millis, ordered: Option<bool>, limit: usize) -> Vec<u8> {
    let mut rows = match value {
        Value::Number(number) => {
            let mut out = b"{\"resultType\":\"scalar\",\"result\":".to_vec();
            sample(&mut out, at, number);
            out.push(b'}');
            return success(&out, false);
        }
        Value::Rows(rows) => rows,
    };
    rows.retain(|row| row.values[0].is_some());
    match ordered {
        Some(largest) => rows.sort_by(|a, b| ranked(a.values[0], b.values[0], largest)),
        None => rows.sort_by(|a, b| a.labels.cmp(&b.labels)),
    }
    let truncated = rows.len() > limit;
    rows.truncate(limit);
    let mut out = b"{\"resultType\":\"vector\",\"result\":[".to_vec();
    for (number, row) in rows.iter().enumerate() {
        comma(&mut out, number);
        metric(&mut out, &row.labels);
        out.extend_from_slice(b",\"value\":");
        sample(&mut out, at, row.values[0].unwrap_or(f64::NAN));
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    success(&out, truncated)
}

/// The answer to `query_range`.
pub fn range(value: Value, times: Times, limit: usize) -> Vec<u8> {
    let mut rows = match value {
        Value::Number(number) => vec![Row { labels: Labels::new(), values: vec![Some(number); times.count] }],
        Value::Rows(rows) => rows,
    };
    rows.retain(|row| row.values.iter().any(Option::is_some));
    rows.sort_by(|a, b| a.labels.cmp(&b.labels));
    let truncated = rows.len() > limit;
    rows.truncate(limit);
    let mut out = b"{\"resultType\":\"matrix\",\"result\":[".to_vec();
    for (number, row) in rows.iter().enumerate() {
        comma(&mut out, number);
        metric(&mut out, &row.labels);
        out.extend_from_slice(b",\"values\":[");
        let mut written = 0;
        for (at, value) in row.values.iter().enumerate() {
            let Some(value) = value else { continue };
            comma(&mut out, written);
            sample(&mut out, times.at(at), *value);
            written += 1;
        }
        out.extend_from_slice(b"]}");
    }
    out.extend_from_slice(b"]}");
    success(&out, truncated)
}

/// `{"metric":{…}`, open.
fn metric(out: &mut Vec<u8>, labels: &Labels) {
    out.extend_from_slice(b"{\"metric\":");
    object(out, labels);
}

pub fn object(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (at, (name, value)) in labels.iter().enumerate() {
        comma(out, at);
        json(out, &**name);
        out.push(b':');
        json(out, &**value);
    }
    out.push(b'}');
}

/// `[1700000000.123,"1.5"]`
fn sample(out: &mut Vec<u8>, at: Millis, value: f64) {
    let sign = if at < 0 { "-" } else { "" };
    let (seconds, fraction) = (at.abs() / 1_000, at.abs() % 1_000);
    let time = if fraction == 0 { format!("{sign}{seconds}") } else { format!("{sign}{seconds}.{fraction:03}") };
    out.extend_from_slice(format!("[{time},\"{}\"]", number(value)).as_bytes());
}

/// The shortest that reads back as the same.
fn number(value: f64) -> String {
    match value {
        _ if value.is_nan() => "NaN".into(),
        f64::INFINITY => "+Inf".into(),
        f64::NEG_INFINITY => "-Inf".into(),
        _ if value != 0.0 && !(1e-6..1e21).contains(&value.abs()) => format!("{value:e}"),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_spelled_as_prometheus_does() {
        let cases = [
            (0, 0.0, "[0,\"0\"]"),
            (1_700_000_000_000, 1.5, "[1700000000,\"1.5\"]"),
            (1_700_000_000_020, -3.0, "[1700000000.020,\"-3\"]"),
            (-1_500, f64::NAN, "[-1.500,\"NaN\"]"),
            (1_000, f64::INFINITY, "[1,\"+Inf\"]"),
            (1_000, f64::NEG_INFINITY, "[1,\"-Inf\"]"),
            (1_000, 1e20, "[1,\"100000000000000000000\"]"),
            (1_000, 1e300, "[1,\"1e300\"]"),
            (1_000, -2.5e-9, "[1,\"-2.5e-9\"]"),
            (1_000, 0.1 + 0.2, "[1,\"0.30000000000000004\"]"),
        ];
        for (at, value, expected) in cases {
            let mut out = Vec::new();
            sample(&mut out, at, value);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
