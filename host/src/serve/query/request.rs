//! Reads what is asked from a URL: metric, filters, step and time range. Knows nothing of definitions.

use super::bind::Subject;
use crate::time::{DAY_MS, HOUR_MS, MINUTE_MS, Millis, SECOND_MS};
use crate::web::ApiError;

/// Longest step and longest relative time.
const DURATION_MAX_MS: Millis = 100 * 366 * DAY_MS;

#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    pub subject: Subject,
    pub step_ms: Millis,
    /// Multiples of the step; `to` is exclusive.
    pub from: Millis,
    pub to: Millis,
}

/// Name and raw value of each parameter, in order.
pub fn parameters(query: &str) -> impl Iterator<Item = (String, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), value)
    })
}

pub fn parse(query: &str, now: Millis) -> Result<Question, ApiError> {
    let mut subject = Subject::default();
    let (mut from, mut to, mut step) = (None, None, None);
    for (name, value) in parameters(query) {
        match name.as_str() {
            "metric" => subject.metric = decode(value),
            "from" => from = Some(decode(value)),
            "to" => to = Some(decode(value)),
            "step" => step = Some(decode(value)),
            "by" => subject.by.extend(value.split(',').filter(|name| !name.is_empty()).map(decode)),
            _ => add_filter(&mut subject.filters, name, value.split(',').map(decode)),
        }
    }
    if subject.metric.is_empty() {
        return Err(ApiError::bad_request(
            "missing_metric",
            "`metric` is missing",
            "Ask as `/v1/query?metric=NAME`; GET /v1/metrics lists the metrics.",
        ));
    }
    let step_ms = step.as_deref().map_or(Ok(MINUTE_MS), parse_step)?;
    let round = |ms: Millis| ms - ms.rem_euclid(step_ms);
    // The step that is under way is part of what is shown.
    let to = to.as_deref().map_or(Ok(round(now) + step_ms), |text| parse_time("to", text, now).map(round))?;
    let from = from.as_deref().map_or(Ok(round(to - DAY_MS)), |text| parse_time("from", text, now).map(round))?;
    if from >= to {
        let help = format!("Rounded down to the step of {} s, `from` is {from} and `to` is {to}.", step_ms / SECOND_MS);
        return Err(ApiError::bad_request("invalid_range", "`from` is not before `to`", help));
    }
    Ok(Question { subject, step_ms, from, to })
}

pub fn add_filter(filters: &mut Vec<(String, Vec<String>)>, dimension: String, values: impl Iterator<Item = String>) {
    let at = filters.iter().position(|(name, _)| *name == dimension).unwrap_or_else(|| {
        filters.push((dimension, Vec::new()));
        filters.len() - 1
    });
    for value in values {
        if !filters[at].1.contains(&value) {
            filters[at].1.push(value);
        }
    }
}

/// `90s`, `1m`, `24h`, `7d`, `2w`.
pub fn parse_duration(text: &str) -> Option<Millis> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: Millis = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "ms" => 1,
        "s" => SECOND_MS,
        "m" => MINUTE_MS,
        "h" => HOUR_MS,
        "d" => DAY_MS,
        "w" => 7 * DAY_MS,
        _ => return None,
    };
    number.checked_mul(unit).filter(|ms| *ms <= DURATION_MAX_MS)
}

pub fn parse_step(text: &str) -> Result<Millis, ApiError> {
    let step = parse_duration(text).filter(|ms| *ms > 0 && ms % MINUTE_MS == 0);
    step.ok_or_else(|| {
        let message = format!("`{text}` is no step");
        ApiError::bad_request("invalid_step", message, "A step is a whole number of minutes: `1m`, `15m`, `1h`, `1d`.")
    })
}

fn parse_time(name: &str, text: &str, now: Millis) -> Result<Millis, ApiError> {
    let text = text.trim();
    let relative = text.strip_prefix("now").unwrap_or(text);
    let parsed = if text == "now" {
        Some(now)
    } else if let Some(back) = relative.strip_prefix('-') {
        parse_duration(back).map(|ms| now - ms)
    } else if text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().ok()
    } else {
        text.parse::<jiff::Timestamp>().ok().map(|time| time.as_millisecond())
    };
    parsed.filter(|ms| (0..=i64::from(u32::MAX) * MINUTE_MS).contains(ms)).ok_or_else(|| {
        ApiError::bad_request(
            "invalid_time",
            format!("`{text}` is no time for `{name}`"),
            "A time is Unix milliseconds, RFC 3339 (`2026-01-31T12:00:00Z`), `now`, or relative (`-24h`).",
        )
    })
}

/// Percent-decoding as forms do it: `+` is a space. What is no valid escape stays as it is.
pub fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = || {
            let hex = text.get(at + 1..at + 3).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
            u8::from_str_radix(hex, 16).ok()
        };
        match bytes[at] {
            b'+' => out.push(b' '),
            b'%' => {
                if let Some(byte) = escaped() {
                    out.push(byte);
                    at += 3;
                    continue;
                }
                out.push(b'%');
            }
            byte => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_700_000_030_000 / MINUTE_MS * MINUTE_MS + 30_000;

    #[test]
    fn ranges() {
        let minute = NOW - 30_000;
        let hour = NOW - NOW % HOUR_MS;
        let day = NOW - NOW % DAY_MS;
        let cases = [
            ("", minute + MINUTE_MS - DAY_MS, minute + MINUTE_MS, MINUTE_MS),
            ("&step=1h", hour + HOUR_MS - DAY_MS, hour + HOUR_MS, HOUR_MS),
            ("&from=-2h&to=now", minute - 2 * HOUR_MS, minute, MINUTE_MS),
            ("&from=-2h", minute - 2 * HOUR_MS, minute + MINUTE_MS, MINUTE_MS),
            ("&from=now-90s&to=-0m", minute - MINUTE_MS, minute, MINUTE_MS),
            ("&from=-2d&to=-1d&step=1d", day - 2 * DAY_MS, day - DAY_MS, DAY_MS),
            ("&from=1700000012345&to=1700000100001", 1_699_999_980_000, 1_700_000_100_000, MINUTE_MS),
            (
                "&from=2023-11-14T22:13:59Z&to=2023-11-14T23:15:00%2B01:00",
                1_699_999_980_000,
                1_700_000_100_000,
                MINUTE_MS,
            ),
        ];
        for (query, from, to, step_ms) in cases {
            let question = parse(&format!("metric=m{query}"), NOW).unwrap();
            assert_eq!((question.from, question.to, question.step_ms), (from, to, step_ms), "{query}");
        }
    }

    #[test]
    fn mistakes() {
        let cases = [
            ("", "missing_metric"),
            ("metric=", "missing_metric"),
            ("metric=m&step=90s", "invalid_step"),
            ("metric=m&step=0m", "invalid_step"),
            ("metric=m&step=5", "invalid_step"),
            ("metric=m&step=99999999999999999999d", "invalid_step"),
            ("metric=m&from=yesterday", "invalid_time"),
            ("metric=m&from=", "invalid_time"),
            ("metric=m&from=99999999999999999999", "invalid_time"),
            ("metric=m&from=now&to=-1h", "invalid_range"),
            ("metric=m&from=now&to=now", "invalid_range"),
        ];
        for (query, code) in cases {
            assert_eq!(parse(query, NOW).map_err(|error| error.code), Err(code), "{query}");
        }
    }

    #[test]
    fn values_are_split_before_they_are_decoded() {
        let question =
            parse("metric=a%20b&by=x,y&by=z&c=US,DE&d%65=a%2Cb,+c&c=FR&c=US&e=&f=100%&g=%zz%c3%a9", NOW).unwrap();
        let filter = |name: &str, values: &[&str]| (name.to_owned(), values.iter().map(|v| (*v).to_owned()).collect());
        assert_eq!(question.subject.metric, "a b");
        assert_eq!(question.subject.by, ["x", "y", "z"]);
        assert_eq!(
            question.subject.filters,
            [
                filter("c", &["US", "DE", "FR"]),
                filter("de", &["a,b", " c"]),
                filter("e", &[""]),
                filter("f", &["100%"]),
                filter("g", &["%zzé"]),
            ]
        );
    }
}
