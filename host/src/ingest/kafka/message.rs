//! What a message holds: lines of JSON, when they arrived and from whom, or the reason why it can hold no event.

use std::borrow::Cow;

use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Headers as _};

use crate::ingest::body::json_to_lines;
use crate::time::{Clock, Millis};

pub const ADDRESS_HEADER: &str = "ip";
pub const USER_AGENT_HEADER: &str = "user_agent";
pub const REASON_HEADER: &str = "reason";
pub const SOURCE_HEADER: &str = "source";
/// The year 9999: what is beyond it is no time of arrival.
const ARRIVAL_MAX: Millis = 253_402_300_799_999;

/// A message's lines and what goes with them.
#[derive(Debug, PartialEq, Eq)]
pub struct Lines<'a> {
    pub value: Cow<'a, [u8]>,
    pub offset: u64,
    pub arrival: Millis,
    pub address: Option<&'a str>,
    pub user_agent: Option<&'a str>,
}

/// A message that holds no event.
#[derive(Debug, PartialEq, Eq)]
pub struct Poison {
    pub reason: &'static str,
    pub arrival: Millis,
}

pub fn lines<'a>(message: &'a BorrowedMessage<'_>, clock: &Clock) -> Result<Lines<'a>, Poison> {
    let arrival = message.timestamp().to_millis().map_or_else(|| clock.now(), |at| at.clamp(0, ARRIVAL_MAX));
    let poison = |reason| Poison { reason, arrival };
    let value = lines_of(message.payload()).map_err(poison)?;
    let (address, user_agent) = client(message).map_err(poison)?;
    Ok(Lines { value, offset: message.offset().max(0) as u64, arrival, address, user_agent })
}

fn lines_of(payload: Option<&[u8]>) -> Result<Cow<'_, [u8]>, &'static str> {
    let Some(value) = payload else { return Err("the message has no value") };
    if simdutf8::basic::from_utf8(value).is_err() {
        return Err("the message is not valid UTF-8");
    }
    let event = value.trim_ascii();
    if event.is_empty() {
        return Err("the message is empty");
    }
    Ok(if is_spread_out(event) { Cow::Owned(json_to_lines(value)) } else { Cow::Borrowed(value) })
}

/// One event written over several lines, not several events.
fn is_spread_out(event: &[u8]) -> bool {
    let Some(newline) = memchr::memchr(b'\n', event) else { return false };
    let first = event[..newline].trim_ascii_end();
    let following = event[newline..].trim_ascii_start();
    event.starts_with(b"{") && event.ends_with(b"}") && !first.ends_with(b"}") && !following.starts_with(b"{")
}

fn client<'a>(message: &'a BorrowedMessage<'_>) -> Result<(Option<&'a str>, Option<&'a str>), &'static str> {
    let Some(headers) = message.headers() else { return Ok((None, None)) };
    // A header whose name is no UTF-8 makes the client library panic.
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let (mut address, mut user_agent) = (None, None);
        for header in headers.iter() {
            let text = || header.value.and_then(|value| std::str::from_utf8(value).ok());
            match header.key {
                ADDRESS_HEADER => address = text(),
                USER_AGENT_HEADER => user_agent = text(),
                _ => {}
            }
        }
        (address, user_agent)
    }));
    read.map_err(|_| "the message has a header whose name is not valid UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_lines_or_poison() {
        let cases: [(Option<&str>, Result<&str, &str>); 9] = [
            (Some("{\"a\":1}"), Ok("{\"a\":1}")),
            (Some("{\"a\":1}\n{\"a\":2}\n"), Ok("{\"a\":1}\n{\"a\":2}\n")),
            // One event over several lines.
            (Some("{\n \"a\": 1\n}\n"), Ok("{  \"a\": 1 } ")),
            (Some("{\"a\": [\n1]}"), Ok("{\"a\": [ 1]}")),
            // A broken first line does not take the second with it.
            (Some("{\"a\":\n{\"a\":2}"), Ok("{\"a\":\n{\"a\":2}")),
            (Some("hello"), Ok("hello")),
            (None, Err("the message has no value")),
            (Some(""), Err("the message is empty")),
            (Some(" \n\t"), Err("the message is empty")),
        ];
        for (payload, wanted) in cases {
            let lines = lines_of(payload.map(str::as_bytes));
            assert_eq!(lines.as_deref(), wanted.map(str::as_bytes).as_ref().copied(), "{payload:?}");
        }
        assert_eq!(lines_of(Some(b"{\"a\":\"\xff\"}")), Err("the message is not valid UTF-8"));
    }
}
