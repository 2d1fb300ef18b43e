//! Reads the parameters of a request, from its URL and its form. Knows no queries.

use crate::serve::query::request::{decode, parameters};
use crate::time::{DAY_MS, MINUTE_MS, Millis};

use super::failure::Failure;

/// Points of a series in one answer, as Prometheus has it.
pub const POINTS_MAX: Millis = 11_000;
/// Times are cut to the years that have four digits.
const TIME_MAX_MS: Millis = 253_402_300_799_000;
const DURATION_MAX_MS: Millis = 100 * 366 * DAY_MS;

/// Name and value, those of the form first.
#[derive(Debug, Default)]
pub struct Params(Vec<(String, String)>);

/// The instants at which an expression is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    pub start: Millis,
    pub step_ms: Millis,
    pub count: usize,
}

impl Times {
    pub fn at(&self, index: usize) -> Millis {
        self.start + index as Millis * self.step_ms
    }

    pub fn last(&self) -> Millis {
        self.at(self.count - 1)
    }
}

impl Params {
    pub fn read(url: Option<&str>, form: &str) -> Self {
        let both = parameters(form).chain(parameters(url.unwrap_or("")));
        Self(both.map(|(name, value)| (name, decode(value))).collect())
    }

    /// The first that is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).find(|value| !value.is_empty())
    }

    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn time(&self, name: &str, absent: Millis) -> Result<Millis, Failure> {
        self.get(name).map_or(Ok(absent), |text| {
            time(text).ok_or_else(|| Failure::parameter(name, format!("cannot parse \"{text}\" to a valid timestamp")))
        })
    }

    pub fn duration(&self, name: &str) -> Result<Option<Millis>, Failure> {
        let parse = |text| {
            duration(text)
                .ok_or_else(|| Failure::parameter(name, format!("cannot parse \"{text}\" to a valid duration")))
        };
        self.get(name).map(parse).transpose()
    }

    /// 0 and absent: no limit.
    pub fn limit(&self) -> Result<usize, Failure> {
        let Some(text) = self.get("limit") else { return Ok(usize::MAX) };
        let limit: usize =
            text.parse().map_err(|_| Failure::parameter("limit", format!("\"{text}\" is no whole number")))?;
        Ok(if limit == 0 { usize::MAX } else { limit })
    }

    /// Those of `query_range`.
    pub fn times(&self) -> Result<Times, Failure> {
        let needed = |name: &str| match self.get(name) {
            Some(_) => self.time(name, 0),
            None => Err(Failure::parameter(name, "cannot parse \"\" to a valid timestamp")),
        };
        let (start, end) = (needed("start")?, needed("end")?);
        if end < start {
            return Err(Failure::parameter("end", "end timestamp must not be before start time"));
        }
        let step_ms = self
            .duration("step")?
            .ok_or_else(|| Failure::parameter("step", "cannot parse \"\" to a valid duration"))?;
        if step_ms <= 0 {
            let message = "zero or negative query resolution step widths are not accepted. Try a positive integer";
            return Err(Failure::parameter("step", message));
        }
        if (end - start) / step_ms > POINTS_MAX {
            return Err(Failure::bad_data(
                "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
            ));
        }
        Ok(Times { start, step_ms, count: ((end - start) / step_ms) as usize + 1 })
    }
}

/// Unix seconds with a fraction, or RFC 3339.
fn time(text: &str) -> Option<Millis> {
    let ms = match text.parse::<f64>() {
        Ok(seconds) if seconds.is_nan() => return None,
        Ok(seconds) => (seconds * 1_000.0).round() as Millis,
        Err(_) => text.parse::<jiff::Timestamp>().ok()?.as_millisecond(),
    };
    Some(ms.clamp(-TIME_MAX_MS, TIME_MAX_MS))
}

/// Seconds with a fraction, or a duration of PromQL: `15s`, `1m30s`.
pub fn duration(text: &str) -> Option<Millis> {
    let ms = match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() => seconds * 1_000.0,
        Ok(_) => return None,
        Err(_) => match rusty_promql_parser::lexer::duration(text) {
            Ok(("", duration)) => duration.as_millis() as f64,
            _ => return None,
        },
    };
    (ms.abs() <= DURATION_MAX_MS as f64).then(|| ms.round() as Millis)
}

/// A step of Tidemark's: any duration, rounded up to whole minutes.
pub fn point_step(text: &str) -> Option<Millis> {
    let ms = duration(text).filter(|ms| *ms > 0)?;
    Some((ms + MINUTE_MS - 1) / MINUTE_MS * MINUTE_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations_are_read_as_prometheus_does() {
        let times = [
            ("0", Some(0)),
            ("1700000000", Some(1_700_000_000_000)),
            ("1700000000.1234", Some(1_700_000_000_123)),
            ("1.7e9", Some(1_700_000_000_000)),
            ("-1.5", Some(-1_500)),
            ("2023-11-14T22:13:20Z", Some(1_700_000_000_000)),
            ("2023-11-14T23:13:20.5+01:00", Some(1_700_000_000_500)),
            ("1e300", Some(TIME_MAX_MS)),
            ("-Inf", Some(-TIME_MAX_MS)),
            ("NaN", None),
            ("yesterday", None),
            ("2023-11-14", None),
        ];
        for (text, expected) in times {
            assert_eq!(time(text), expected, "{text}");
        }
        let durations = [
            ("15", Some(15_000)),
            ("0.5", Some(500)),
            ("-1", Some(-1_000)),
            ("15s", Some(15_000)),
            ("1m30s", Some(90_000)),
            ("1d", Some(DAY_MS)),
            ("250ms", Some(250)),
            ("1e300", None),
            ("inf", None),
            ("NaN", None),
            ("", None),
            ("1x", None),
            ("9999999999y", None),
        ];
        for (text, expected) in durations {
            assert_eq!(duration(text), expected, "{text}");
        }
        assert_eq!(["15s", "1m", "61", "1h"].map(point_step), [60_000, 60_000, 120_000, 3_600_000].map(Some));
        assert_eq!(["0", "-5m", "x"].map(point_step), [None; 3]);
    }

    #[test]
    fn the_form_comes_before_the_url() {
        let params =
            Params::read(Some("query=a&match%5B%5D=x&limit=0"), "query=b%2B1+c&match[]=y&match[]=z&start=&start=5");
        assert_eq!(params.get("query"), Some("b+1 c"));
        assert_eq!(params.all("match[]").collect::<Vec<_>>(), ["y", "z", "x"]);
        assert_eq!(params.time("start", 0), Ok(5_000));
        assert_eq!(params.limit(), Ok(usize::MAX));
    }
}
