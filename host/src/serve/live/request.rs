//! What a client says: one JSON object a frame.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::serve::query::bind::Subject;
use crate::serve::query::request::{add_filter, parse_duration, parse_step};
use crate::time::{DAY_MS, MINUTE_MS, Millis};
use crate::web::ApiError;

const ID_BYTES_MAX: usize = 256;

#[derive(Debug, PartialEq)]
pub enum Request {
    /// `resume`: what the client was told last of it, before the connection was lost.
    Subscribe {
        id: String,
        topic: TopicKey,
        resume: Option<Resume>,
    },
    Unsubscribe {
        id: String,
    },
}

/// What makes subscriptions equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicKey {
    pub subject: Subject,
    pub step_ms: Millis,
    /// A whole number of steps.
    pub range_ms: Millis,
}

/// Where a client was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Resume {
    pub seq: u64,
    /// What the snapshot said, where the client gives it back; what is none is of no topic.
    pub epoch: Option<u64>,
}

/// What is wrong, and which subscription it is about where that could be read.
#[derive(Debug, PartialEq)]
pub struct Mistake {
    pub id: Option<String>,
    pub error: ApiError,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscribe {
    #[serde(rename = "op")]
    _op: String,
    #[serde(rename = "id")]
    _id: String,
    metric: String,
    range: Option<String>,
    step: Option<String>,
    by: Option<Vec<String>>,
    #[serde(rename = "where")]
    filters: Option<BTreeMap<String, Values>>,
}

#[derive(Deserialize)]
struct Resumed {
    seq: u64,
    epoch: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    One(String),
    Many(Vec<String>),
}

pub fn parse(text: &str) -> Result<Request, Mistake> {
    let mistake = |id: Option<&str>, error| Mistake { id: id.map(str::to_owned), error };
    let mut value: Value = serde_json::from_str(text).map_err(|error| {
        let help = "Send one JSON object a frame: {\"op\":\"subscribe\",\"id\":\"a\",\"metric\":\"…\"}.";
        mistake(None, ApiError::bad_request("invalid_json", format!("this is no JSON: {error}"), help))
    })?;
    let said = value.get("id").and_then(Value::as_str).map(str::to_owned);
    let id = said.as_deref();
    let invalid = |message: String| {
        mistake(id, ApiError::bad_request("invalid_message", message, "docs/protocol.md shows what can be said."))
    };
    let op = value.get("op").and_then(Value::as_str).map(str::to_owned);
    let op = op.ok_or_else(|| invalid("`op` is missing".to_owned()))?;
    let known = id.filter(|id| id.len() <= ID_BYTES_MAX);
    let need_id = || known.map(str::to_owned).ok_or_else(|| invalid("`id` is no text of at most 256 bytes".to_owned()));
    match op.as_str() {
        "subscribe" | "resume" => {
            let id = need_id()?;
            let resume = (op == "resume").then(|| resume_of(&mut value)).transpose().map_err(invalid)?;
            let said = Subscribe::deserialize(&value).map_err(|error| invalid(error.to_string()))?;
            let topic = topic_of(said).map_err(|error| mistake(Some(&id), error))?;
            Ok(Request::Subscribe { id, topic, resume })
        }
        "unsubscribe" => Ok(Request::Unsubscribe { id: need_id()? }),
        other => {
            let message = format!("`{other}` is nothing that can be asked");
            let help = "There are `subscribe`, `resume` and `unsubscribe`.";
            Err(mistake(id, ApiError::bad_request("unknown_op", message, help)))
        }
    }
}

/// Takes what a resume says besides its subscription out of it.
fn resume_of(value: &mut Value) -> Result<Resume, String> {
    let Resumed { seq, epoch } = Resumed::deserialize(&*value).map_err(|error| error.to_string())?;
    if let Some(said) = value.as_object_mut() {
        ["seq", "epoch"].iter().for_each(|name| drop(said.remove(*name)));
    }
    Ok(Resume { seq, epoch: epoch.map(|text| u64::from_str_radix(&text, 16).unwrap_or_default()) })
}

fn topic_of(said: Subscribe) -> Result<TopicKey, ApiError> {
    let step_ms = said.step.as_deref().map_or(Ok(MINUTE_MS), parse_step)?;
    let range = said.range.as_deref().map_or(Some(DAY_MS), parse_duration).filter(|ms| *ms > 0);
    let range = range.ok_or_else(|| {
        let message = format!("`{}` is no range", said.range.unwrap_or_default());
        ApiError::bad_request("invalid_range", message, "A range is a span of time: `1h`, `24h`, `7d`.")
    })?;
    let range_ms = range.div_euclid(step_ms).max(1) * step_ms;
    let mut filters = Vec::new();
    for (dimension, values) in said.filters.unwrap_or_default() {
        let mut values = match values {
            Values::One(value) => vec![value],
            Values::Many(values) => values,
        };
        values.sort();
        if !values.is_empty() {
            add_filter(&mut filters, dimension, values.into_iter());
        }
    }
    let subject = Subject { metric: said.metric, by: said.by.unwrap_or_default(), filters };
    Ok(TopicKey { subject, step_ms, range_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_subscriptions_are_one_topic() {
        let topic = |text: &str| match parse(&format!("{{\"op\":\"subscribe\",\"id\":\"a\",\"metric\":\"m\"{text}}}")) {
            Ok(Request::Subscribe { topic, .. }) => topic,
            other => panic!("{other:?}"),
        };
        assert_eq!(topic(""), topic(r#","range":"1d","step":"60s","by":[],"where":{}"#));
        assert_eq!(topic(r#","where":{"b":["y","x","y"],"a":"z"}"#), topic(r#","where":{"a":["z"],"b":["x","y"]}"#));
        assert_eq!(topic(r#","where":{"a":[]}"#), topic(""));
        assert_eq!(topic(r#","range":"90m","step":"1h""#).range_ms, 3_600_000);
        assert_ne!(topic(r#","by":["a"]"#), topic(""));
    }

    #[test]
    fn a_resume_is_a_subscription_and_where_the_client_was() {
        let resume = |text: &str| match parse(&format!("{{\"op\":\"resume\",\"id\":\"a\",\"metric\":\"m\"{text}}}")) {
            Ok(Request::Subscribe { topic, resume: Some(resume), .. }) => (topic.subject.by, resume),
            other => panic!("{other:?}"),
        };
        assert_eq!(resume(r#","seq":7,"by":["x"]"#), (vec!["x".to_owned()], Resume { seq: 7, epoch: None }));
        assert_eq!(resume(r#","seq":7,"epoch":"2a""#).1, Resume { seq: 7, epoch: Some(42) });
        assert_eq!(resume(r#","seq":7,"epoch":"of another program""#).1.epoch, Some(0));
    }

    #[test]
    fn mistakes() {
        let cases = [
            ("{", None, "invalid_json"),
            ("[]", None, "invalid_message"),
            (r#"{"op":"subscribe","metric":"m"}"#, None, "invalid_message"),
            (r#"{"op":"subscribe","id":"a"}"#, Some("a"), "invalid_message"),
            (r#"{"op":"subscribe","id":"a","metric":"m","ranges":"1h"}"#, Some("a"), "invalid_message"),
            (r#"{"op":"subscribe","id":"a","metric":"m","range":"x"}"#, Some("a"), "invalid_range"),
            (r#"{"op":"subscribe","id":"a","metric":"m","step":"1s"}"#, Some("a"), "invalid_step"),
            (r#"{"op":"subscribe","id":"a","metric":"m","seq":1}"#, Some("a"), "invalid_message"),
            (r#"{"op":"resume","id":"a","metric":"m"}"#, Some("a"), "invalid_message"),
            (r#"{"op":"resume","id":"a","metric":"m","seq":-1}"#, Some("a"), "invalid_message"),
            (r#"{"op":"resume","id":"a","metric":"m","seq":1,"epoch":7}"#, Some("a"), "invalid_message"),
            (r#"{"op":"resume","id":"a","seq":1}"#, Some("a"), "invalid_message"),
            (r#"{"op":"dance","id":"a"}"#, Some("a"), "unknown_op"),
        ];
        for (text, id, code) in cases {
            let mistake = parse(text).unwrap_err();
            assert_eq!((mistake.id.as_deref(), mistake.error.code), (id, code), "{text}");
        }
    }
}
