//! What is sent: a batch as JSON of our own, as alerts for an Alertmanager, as text for Slack. Forms are in docs/alerts.md;
//! those of our own only grow. Does not know how it is sent.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};
use url::Url;

use super::state::{Alert, Batch, Key, News, Phase};
use crate::catalog::definitions::{Definitions, Notify, TargetKind};
use crate::time::Millis;

/// Series that a text names; of the others it says how many they are.
const LINES_MAX: usize = 20;
const VERSION: u32 = 1;
/// An Alertmanager that hears nothing for so long takes the alert for over.
pub const FORGOTTEN_AFTER_MS: Millis = 5 * crate::time::MINUTE_MS;

/// The body for this kind of target.
pub fn body(kind: TargetKind, target: &str, batch: &Batch, definitions: &Definitions, now: Millis) -> Vec<u8> {
    let about = About::of(target, batch, definitions);
    let body = match kind {
        TargetKind::Webhook => about.webhook(now),
        TargetKind::Alertmanager => about.alertmanager(now),
        TargetKind::Slack => json!({"text": about.text(true)}),
    };
    body.to_string().into_bytes()
}

/// Where it is sent.
pub fn address(notify: &Notify) -> Url {
    let mut url = notify.url.clone();
    if notify.kind == TargetKind::Alertmanager {
        let path = format!("{}/api/v2/alerts", url.path().trim_end_matches('/'));
        url.set_path(&path);
    }
    url
}

struct About<'a> {
    target: &'a str,
    batch: &'a Batch,
    rule: &'a str,
    kind: &'a str,
    metric: &'a str,
    title: &'a str,
    unit: Option<&'a str>,
}

impl<'a> About<'a> {
    fn of(target: &'a str, batch: &'a Batch, definitions: &'a Definitions) -> Self {
        let (rule, kind, metric) = batch
            .alerts
            .first()
            .map_or(("", "", ""), |(key, alert)| (key.rule.as_str(), alert.kind.as_str(), alert.metric.as_str()));
        // It may be gone by the time that its end is told.
        let defined = definitions.metrics.iter().find(|it| it.name == metric);
        let title = defined.map_or(metric, |it| &it.title);
        Self { target, batch, rule, kind, metric, title, unit: defined.and_then(|it| it.unit.as_deref()) }
    }

    fn webhook(&self, now: Millis) -> Value {
        let alert = |(key, alert): &(Key, Alert)| {
            let labels: serde_json::Map<_, _> =
                key.labels.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
            json!({
                "id": key.id(alert.since),
                "status": status(alert),
                "labels": labels,
                "since": alert.since,
                "until": alert.until,
                "t": alert.seen.t,
                "value": alert.seen.value,
                "expected": alert.seen.expected,
                "lower": alert.seen.lower,
                "upper": alert.seen.upper,
                "score": alert.seen.score,
            })
        };
        json!({
            "version": VERSION,
            "status": if self.batch.news == News::Ended { "resolved" } else { "firing" },
            "repeated": self.batch.news == News::Lasts,
            "target": self.target,
            "rule": {"name": self.rule, "kind": self.kind},
            "metric": {"name": self.metric, "title": self.title, "unit": self.unit},
            "text": self.text(false),
            "sent_at": now,
            "alerts": self.batch.alerts.iter().map(alert).collect::<Vec<_>>(),
        })
    }

    /// For `POST /api/v2/alerts`.
    fn alertmanager(&self, now: Millis) -> Value {
        let alert = |(key, alert): &(Key, Alert)| {
            let mut labels = serde_json::Map::new();
            for (name, value) in &key.labels {
                let taken = ["alertname", "metric", "rule", "source"].contains(&name.as_str());
                let name = if taken { format!("dimension_{name}") } else { name.clone() };
                labels.insert(name, value.as_str().into());
            }
            for (name, value) in
                [("alertname", self.rule), ("metric", self.metric), ("rule", self.kind), ("source", "tidemark")]
            {
                labels.insert(name.into(), value.into());
            }
            let ends = alert.until.unwrap_or(now + FORGOTTEN_AFTER_MS);
            let mut annotations = serde_json::Map::new();
            annotations.insert("summary".into(), format!("{}: {}", self.title, self.line(key, alert)).into());
            annotations.insert("id".into(), key.id(alert.since).into());
            let seen = &alert.seen;
            let numbers = [
                ("value", seen.value),
                ("expected", seen.expected),
                ("lower", seen.lower),
                ("upper", seen.upper),
                ("score", seen.score),
            ];
            for (name, value) in numbers {
                if let Some(value) = value {
                    annotations.insert(name.into(), value.to_string().into());
                }
            }
            json!({
                "labels": labels,
                "annotations": annotations,
                "startsAt": rfc3339(alert.since),
                "endsAt": rfc3339(ends),
            })
        };
        self.batch.alerts.iter().map(alert).collect()
    }

    fn text(&self, slack: bool) -> String {
        let (title, escape): (String, fn(&str) -> String) = if slack {
            (format!("*{}*", escaped(self.title)), escaped)
        } else {
            (self.title.to_owned(), str::to_owned)
        };
        let news = match self.batch.news {
            News::Began => "is anomalous",
            News::Lasts => "is still anomalous",
            News::Ended => "is back to normal",
        };
        let mut text = format!("{title} {news} (rule {}, {})", self.rule, self.kind);
        for (key, alert) in self.batch.alerts.iter().take(LINES_MAX) {
            let _ = write!(text, "\n• {}", escape(&self.line(key, alert)));
        }
        let more = self.batch.alerts.len().saturating_sub(LINES_MAX);
        if more > 0 {
            let _ = write!(text, "\n… and {more} more series");
        }
        text
    }

    /// `country = BR: 12.5 USD, expected 40 (30 to 50), since 2024-01-01 12:03 UTC`
    fn line(&self, key: &Key, alert: &Alert) -> String {
        let mut line = String::new();
        if !key.labels.is_empty() {
            let labels: Vec<String> = key.labels.iter().map(|(name, value)| format!("{name} = {value}")).collect();
            let _ = write!(line, "{}: ", labels.join(", "));
        }
        if let (Phase::Ended, Some(until)) = (alert.phase, alert.until) {
            let _ = write!(line, "from {} to {} UTC", minute(alert.since), minute(until));
            return line;
        }
        let seen = &alert.seen;
        line.push_str(&seen.value.map_or_else(|| "no value".into(), |value| self.number(value)));
        if let Some(expected) = seen.expected {
            let _ = write!(line, ", expected {}", self.number(expected));
        }
        let bounds = match (seen.lower, seen.upper) {
            (Some(lower), Some(upper)) => format!("{} to {}", self.number(lower), self.number(upper)),
            (Some(lower), None) => format!("at least {}", self.number(lower)),
            (None, Some(upper)) => format!("at most {}", self.number(upper)),
            (None, None) => String::new(),
        };
        if !bounds.is_empty() {
            let _ = write!(line, " ({bounds})");
        }
        let _ = write!(line, ", since {} UTC", minute(alert.since));
        line
    }

    /// Four digits are enough to judge by; whole numbers are whole.
    fn number(&self, value: f64) -> String {
        let (value, unit) = match self.unit {
            Some("%") => (value * 100.0, " %".to_owned()),
            Some(unit) => (value, format!(" {unit}")),
            None => (value, String::new()),
        };
        let digits = if value.fract() == 0.0 || value.abs() >= 1e4 {
            0
        } else {
            (3 - value.abs().log10().floor().clamp(-9.0, 3.0) as i32).max(0) as usize
        };
        let text = format!("{value:.digits$}");
        let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { text.as_str() };
        format!("{text}{unit}")
    }
}

fn status(alert: &Alert) -> &'static str {
    if alert.phase == Phase::Ended { "resolved" } else { "firing" }
}

/// Slack reads these three as its own.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn timestamp(ms: Millis) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or_default()
}

fn rfc3339(ms: Millis) -> String {
    timestamp(ms).to_string()
}

fn minute(ms: Millis) -> String {
    timestamp(ms).strftime("%Y-%m-%d %H:%M").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::state::Seen;

    const AT: Millis = 1_704_110_400_000;

    fn definitions() -> Definitions {
        let text = "[dimensions]\ncountry = {}\nrule = {}\n[metrics]\nrevenue = { value = \"sum(x)\", unit = \"USD\" }\n\
                    share = { value = \"sum(x) / count()\", unit = \"%\" }\n";
        crate::catalog::load("metrics.toml", text, &crate::catalog::fake::Fake { digest: "1" }).map_err(drop).unwrap()
    }

    fn batch(news: News, series: usize) -> Batch {
        let seen = Seen {
            t: AT + 60_000,
            value: Some(12.5),
            expected: Some(40.0),
            lower: Some(30.25),
            upper: None,
            score: Some(-3.2),
        };
        let ended = news == News::Ended;
        let alert = |n: usize| {
            let labels = vec![("country".to_owned(), format!("B<{n}")), ("rule".to_owned(), "r".to_owned())];
            let alert = Alert {
                phase: if ended { Phase::Ended } else { Phase::Firing },
                kind: "zscore".into(),
                metric: "revenue".into(),
                since: AT,
                until: ended.then_some(AT + 120_000),
                seen: seen.clone(),
                told: None,
                told_end: None,
            };
            (Key { rule: "low_revenue".into(), labels }, alert)
        };
        Batch { news, alerts: (0..series).map(alert).collect() }
    }

    fn sent(kind: TargetKind, news: News) -> String {
        let mut batch = batch(news, 1);
        batch.alerts[0].0.labels = vec![("country".into(), "BR".into())];
        let body = body(kind, "oncall", &batch, &definitions(), AT + 90_000);
        serde_json::to_string_pretty(&serde_json::from_slice::<Value>(&body).unwrap()).unwrap()
    }

    /// Each body as docs/alerts.md shows it.
    #[test]
    fn bodies_are_as_documented() {
        let documented = include_str!("../../../docs/alerts.md");
        let cases = [
            (TargetKind::Webhook, News::Began),
            (TargetKind::Alertmanager, News::Began),
            (TargetKind::Slack, News::Ended),
        ];
        for (kind, news) in cases {
            let sent = sent(kind, news);
            assert!(documented.contains(&sent), "{kind:?} is not in docs/alerts.md:\n{sent}");
        }
    }

    #[test]
    fn texts() {
        let definitions = definitions();
        let text = |news, series, slack| About::of("t", &batch(news, series), &definitions).text(slack);
        assert_eq!(
            text(News::Lasts, 1, true),
            "*Revenue* is still anomalous (rule low_revenue, zscore)\n• country = B&lt;0, rule = r: 12.5 USD, expected 40 USD (at least 30.25 USD), since 2024-01-01 12:00 UTC"
        );
        assert!(
            text(News::Ended, 1, false)
                .ends_with("• country = B<0, rule = r: from 2024-01-01 12:00 to 2024-01-01 12:02 UTC")
        );
        assert!(text(News::Began, 23, false).ends_with("\n… and 3 more series"));
        let manager = About::of("t", &batch(News::Began, 1), &definitions).alertmanager(AT);
        assert_eq!(
            (&manager[0]["labels"]["rule"], &manager[0]["labels"]["dimension_rule"]),
            (&json!("zscore"), &json!("r"))
        );
        let mut gone = batch(News::Began, 1);
        gone.alerts[0].1.metric = "was_removed".into();
        assert!(About::of("t", &gone, &definitions).text(false).starts_with("was_removed is anomalous"));
    }

    #[test]
    fn numbers() {
        let definitions = definitions();
        let batch = batch(News::Began, 1);
        let with = |unit| About { unit, ..About::of("t", &batch, &definitions) };
        for (value, expected) in [
            (0.0, "0"),
            (12.0, "12"),
            (12.3456, "12.35"),
            (1234.56, "1235"),
            (123_456.7, "123457"),
            (0.000_123_456, "0.0001235"),
            (-0.5, "-0.5"),
            (1e-30, "0"),
        ] {
            assert_eq!(with(None).number(value), expected);
        }
        assert_eq!(with(Some("%")).number(0.0525), "5.25 %");
    }
}
