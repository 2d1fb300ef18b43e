//! An answer as a table or as CSV. Does not know how it was asked.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;

use console::Style;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::cli::table::{Cell, Table};
use crate::time::Millis;

#[derive(Deserialize)]
pub struct Answer {
    metric: String,
    unit: Option<String>,
    step_ms: Millis,
    from: Millis,
    to: Millis,
    series: Vec<Series>,
    provisional_from: Option<Millis>,
}

#[derive(Deserialize)]
struct Series {
    labels: Map<String, Value>,
    points: Vec<(Millis, Value)>,
    anomalies: Vec<Anomaly>,
}

#[derive(Deserialize)]
struct Anomaly {
    t: Millis,
}

impl Series {
    /// Its dimensions' values; an event without one has the empty text.
    fn name(&self) -> String {
        let shown = |value: &Value| match value.as_str().unwrap_or_default() {
            "" => "(none)".to_owned(),
            text => text.to_owned(),
        };
        self.labels.values().map(shown).collect::<Vec<_>>().join(" / ")
    }

    fn sum(&self) -> f64 {
        self.points.iter().filter_map(|(_, value)| value.as_f64()).sum()
    }
}

/// One line a point: its time, its labels, its value.
pub fn csv(answer: &Answer, by: &[String]) -> anyhow::Result<Vec<u8>> {
    let mut out = csv::Writer::from_writer(Vec::new());
    let names = by.iter().map(String::as_str);
    out.write_record(["time"].into_iter().chain(names).chain(["value"]))?;
    for series in &answer.series {
        let labels: Vec<&str> =
            by.iter().map(|name| series.labels.get(name).and_then(Value::as_str).unwrap_or_default()).collect();
        for (t, value) in &series.points {
            let value = if value.is_null() { String::new() } else { value.to_string() };
            let time = jiff::Timestamp::from_millisecond(*t)?.to_string();
            out.write_record([time.as_str()].iter().chain(&labels).chain(&[value.as_str()]))?;
        }
    }
    Ok(out.into_inner()?)
}

/// A line a time, a column a series, the largest first; as many as `width` has room for.
pub fn table(answer: &Answer, width: Option<usize>, colours: bool) -> String {
    let unit = answer.unit.as_deref();
    let mut out = title(answer);
    if answer.series.is_empty() {
        out.push_str("no events\n");
        return out;
    }
    let mut series: Vec<&Series> = answer.series.iter().collect();
    series.sort_by(|a, b| b.sum().total_cmp(&a.sum()));
    let times: BTreeSet<Millis> = series.iter().flat_map(|it| it.points.iter().map(|(t, _)| *t)).collect();
    let head = |it: &&Series| if it.labels.is_empty() { answer.metric.clone() } else { it.name() };
    let mut table = Table::new(
        [Cell::left("time (UTC)")].into_iter().chain(series.iter().map(|it| Cell::right(head(it)))).collect(),
    );
    let mut marks = (false, false);
    let columns: Vec<(HashMap<Millis, &Value>, HashSet<Millis>)> = series
        .iter()
        .map(|it| {
            (it.points.iter().map(|(t, value)| (*t, value)).collect(), it.anomalies.iter().map(|a| a.t).collect())
        })
        .collect();
    for t in times {
        let open = answer.provisional_from.is_some_and(|from| t >= from);
        marks.0 |= open;
        let time = Cell::left(format!("{}{}", minute(t), if open { " ~" } else { "" }));
        let mut row = vec![if open { time.styled(Style::new().dim()) } else { time }];
        for (points, anomalies) in &columns {
            let strange = anomalies.contains(&t);
            marks.1 |= strange;
            let text = points.get(&t).map_or_else(String::new, |value| shown(value, unit));
            row.push(match strange {
                true => Cell::right(format!("! {text}")).styled(Style::new().red().bold()),
                false => Cell::right(text),
            });
        }
        table.rows.push(row);
    }
    let left_out = width.map_or(0, |width| table.fit(width));
    out.push_str(&table.render(colours));
    if left_out > 0 {
        let _ = writeln!(out, "{left_out} more series have no room here: --format csv has all");
    }
    for (there, mark) in [(marks.0, "~ may still change"), (marks.1, "! an anomaly")] {
        if there {
            let _ = writeln!(out, "{mark}");
        }
    }
    out
}

fn title(answer: &Answer) -> String {
    let Answer { metric, unit, step_ms, from, to, .. } = answer;
    let unit = unit.as_deref().map_or_else(String::new, |unit| format!(" [{unit}]"));
    let step = match step_ms / 60_000 {
        minutes if minutes % 60 == 0 => format!("{} h", minutes / 60),
        minutes => format!("{minutes} min"),
    };
    format!("{metric}{unit}, {} to {} UTC, step {step}\n", minute(*from), minute(*to))
}

/// `2026-11-30 20:04`
fn minute(t: Millis) -> String {
    let time = jiff::Timestamp::from_millisecond(t).unwrap_or_default();
    time.strftime("%Y-%m-%d %H:%M").to_string()
}

/// A number short enough for people; a list in one line.
fn shown(value: &Value, unit: Option<&str>) -> String {
    match value {
        Value::Number(number) => number_shown(number.as_f64().unwrap_or(f64::NAN), unit),
        Value::Array(list) if list.iter().all(Value::is_array) => {
            let pair = |pair: &Value| format!("{} {}", pair[0].as_str().unwrap_or_default(), pair[1]);
            list.iter().map(pair).collect::<Vec<_>>().join(", ")
        }
        Value::Array(steps) => steps.iter().map(Value::to_string).collect::<Vec<_>>().join(" > "),
        _ => "-".to_owned(),
    }
}

fn number_shown(value: f64, unit: Option<&str>) -> String {
    if unit == Some("%") {
        return format!("{:.2} %", value * 100.0);
    }
    match value.abs() {
        _ if value.fract() == 0.0 && value.abs() < 1e15 => format!("{value}"),
        1.0.. => format!("{value:.2}"),
        // Below one, four digits that say something.
        small => format!("{value:.*}", (3 - small.log10().floor() as i32).clamp(4, 12) as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Answer {
        serde_json::from_value(serde_json::json!({
            "metric": "revenue", "unit": "USD", "step_ms": 60_000, "from": 1_704_110_400_000i64, "to": 1_704_110_520_000i64,
            "revision": 3, "provisional_from": 1_704_110_460_000i64,
            "series": [
                {"labels": {"country": ""}, "points": [[1_704_110_460_000i64, null]], "anomalies": []},
                {"labels": {"country": "U,S"}, "points": [[1_704_110_400_000i64, 12.5], [1_704_110_460_000i64, 1000]],
                 "anomalies": [{"t": 1_704_110_400_000i64, "value": 12.5, "score": 8.5}]},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn a_table_for_people() {
        let expected = "\
revenue [USD], 2024-01-01 12:00 to 2024-01-01 12:02 UTC, step 1 min
time (UTC)              U,S  (none)
2024-01-01 12:00    ! 12.50        
2024-01-01 12:01 ~     1000       -
~ may still change
! an anomaly
";
        assert_eq!(table(&answer(), None, false), expected);
        let narrow = table(&answer(), Some(28), false);
        assert!(narrow.contains("1 more series have no room here") && !narrow.contains("(none)"), "{narrow}");
        assert!(table(&answer(), None, true).contains("\u{1b}[31m\u{1b}[1m! 12.50\u{1b}[0m"));
        let nothing = Answer { series: vec![], ..answer() };
        assert!(table(&nothing, None, false).ends_with("no events\n"));
    }

    #[test]
    fn csv_has_every_point() {
        let text = String::from_utf8(csv(&answer(), &["country".to_owned()]).unwrap()).unwrap();
        let expected = "time,country,value\n2024-01-01T12:01:00Z,,\n2024-01-01T12:00:00Z,\"U,S\",12.5\n\
                        2024-01-01T12:01:00Z,\"U,S\",1000\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn values_are_short() {
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let cases = [
            ("0", None, "0"),
            ("-3.0", None, "-3"),
            ("1234.5678", None, "1234.57"),
            ("0.001234567", None, "0.001235"),
            ("0.5", None, "0.5000"),
            ("0.0312", Some("%"), "3.12 %"),
            ("null", None, "-"),
            ("[[\"/cart\",812],[\"/\",790]]", None, "/cart 812, / 790"),
            ("[4120,901,344]", None, "4120 > 901 > 344"),
        ];
        for (value, unit, expected) in cases {
            assert_eq!(shown(&json(value), unit), expected, "{value}");
        }
    }
}
