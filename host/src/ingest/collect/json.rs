//! JSON as far as mapping needs it: members of an object and elements of an array as they stand in the text, and lines written
//! from such pieces. Numbers keep their digits, nothing is taken apart that nobody asks for, and no nesting costs stack.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Deserializer;
use serde_json::value::RawValue;

use crate::engine::timestamp;
use crate::time::Millis;

/// The values of these members of an object, as they stand there: of equal names the last one, `null` as if it were missing.
pub fn members<'a, const N: usize>(object: &'a str, names: [&str; N]) -> serde_json::Result<[Option<&'a str>; N]> {
    let mut reader = Deserializer::from_str(object);
    let found = reader.deserialize_map(Members(&names))?;
    reader.end()?;
    Ok(found)
}

/// The same of what may be missing or no object: then it has no members.
pub fn members_of<'a, const N: usize>(object: Option<&'a str>, names: [&str; N]) -> [Option<&'a str>; N] {
    object.and_then(|object| members(object, names).ok()).unwrap_or([None; N])
}

struct Members<'n, const N: usize>(&'n [&'n str; N]);

impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
    type Value = [Option<&'de str>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(index) = map.next_key_seed(Position(self.0))? {
            let value = map.next_value::<&RawValue>()?.get();
            if let Some(index) = index {
                found[index] = (value != "null").then_some(value);
            }
        }
        Ok(found)
    }
}

/// Where a name stands in a list.
struct Position<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for Position<'_> {
    type Value = Option<usize>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Position<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|listed| *listed == name))
    }
}

/// Calls `element` with each element of an array until it fails. The outer error: this is no array.
pub fn elements<'a, E>(
    array: &'a str,
    element: impl FnMut(&'a str) -> Result<(), E>,
) -> serde_json::Result<Result<(), E>> {
    let mut failure = None;
    let mut reader = Deserializer::from_str(array);
    let outcome = reader.deserialize_seq(Elements { element, failure: &mut failure }).and_then(|()| reader.end());
    failure.map_or(outcome.map(Ok), |failure| Ok(Err(failure)))
}

struct Elements<'f, F, E> {
    element: F,
    failure: &'f mut Option<E>,
}

impl<'de, E, F: FnMut(&'de str) -> Result<(), E>> Visitor<'de> for Elements<'_, F, E> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut array: A) -> Result<(), A::Error> {
        while let Some(raw) = array.next_element::<&RawValue>()? {
            if let Err(failure) = (self.element)(raw.get()) {
                *self.failure = Some(failure);
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// The text of a JSON string; `None` for anything else.
pub fn text(value: &str) -> Option<String> {
    serde_json::from_str(value).ok()
}

/// What identifies: text as it stands, a number as text, anything else as it stands, for those who judge it. Empty text is none.
pub fn identity(value: &str) -> Option<Cow<'_, str>> {
    match value.as_bytes()[0] {
        b'"' if value == "\"\"" => None,
        b'-' | b'0'..=b'9' => Some(Cow::Owned(format!("\"{value}\""))),
        _ => Some(Cow::Borrowed(value)),
    }
}

/// A time as the definitions read it: RFC 3339 or a Unix number.
pub fn time(value: &str) -> Option<Millis> {
    match value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
        Some(text) => timestamp::from_text(text.as_bytes()),
        None => timestamp::from_number(value.as_bytes()).filter(|_| value.starts_with(|c: char| c.is_ascii_digit())),
    }
}

/// Lines of JSON, an object each.
#[derive(Default)]
pub struct Writer {
    pub bytes: Vec<u8>,
    /// Where the line begins that is being written.
    start: usize,
}

impl Writer {
    pub fn begin(&mut self) {
        self.start = self.bytes.len();
        self.bytes.push(b'{');
    }

    pub fn end(&mut self) {
        self.bytes.extend_from_slice(b"}\n");
    }

    /// A value as it stood, if there was one.
    pub fn raw(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.name(name);
            self.on_one_line(value);
        }
    }

    pub fn text(&mut self, name: &str, value: &str) {
        self.raw(name, Some(&serde_json::Value::from(value).to_string()));
    }

    /// A line of its own that is no event: those who judge say so.
    pub fn no_event(&mut self, value: &str) {
        if value.starts_with('{') {
            self.bytes.push(b'[');
            self.on_one_line(value);
            self.bytes.push(b']');
        } else {
            self.on_one_line(value);
        }
        self.bytes.push(b'\n');
    }

    /// When something happened: by the sender's clock, if it says when it sent this, put right by ours.
    pub fn time(&mut self, given: Option<&str>, sent: Option<Millis>, arrival: Millis) {
        let at = given.zip(sent).and_then(|(given, sent)| Some(time(given)? + (arrival - sent)));
        match at {
            Some(at) => self.raw("ts", Some(&at.to_string())),
            None => self.raw("ts", given),
        }
    }

    fn name(&mut self, name: &str) {
        if self.bytes.len() > self.start + 1 {
            self.bytes.push(b',');
        }
        self.bytes.push(b'"');
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(b"\":");
    }

    /// Line ends stand only between the parts of a value, never inside its strings.
    fn on_one_line(&mut self, value: &str) {
        self.bytes.extend(value.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_stand_as_they_were_written() {
        let object = " {\"a\": 1.50, \"b\":{\n\"x\":[]} , \"n\":null,\"\\u0061\":\"last\"}";
        let [a, b, n, other] = members(object, ["a", "b", "n", "other"]).unwrap();
        assert_eq!((a, b, n, other), (Some("\"last\""), Some("{\n\"x\":[]}"), None, None));
        for wrong in ["", "5", "[]", "{", "{\"a\":}", "{} {}", "{\"\\ud800\":1}"] {
            assert!(members(wrong, ["a"]).is_err(), "{wrong}");
            assert_eq!(members_of(Some(wrong), ["a"]), [None]);
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert_eq!(members(&deep, ["a"]).unwrap()[0].map(str::len), Some(2_000_001));
    }

    #[test]
    fn elements_are_given_one_by_one() {
        let take = |array: &'static str, most: usize| {
            let mut seen = Vec::new();
            let outcome = elements(array, |element| {
                seen.push(element);
                if seen.len() > most { Err("enough") } else { Ok(()) }
            });
            (seen, outcome.map_err(|_| ()))
        };
        assert_eq!(take("[1, {\"a\":[2]},\"x\"]", 9), (vec!["1", "{\"a\":[2]}", "\"x\""], Ok(Ok(()))));
        assert_eq!(take("[1,2,3]", 1), (vec!["1", "2"], Ok(Err("enough"))));
        assert_eq!(take("{}", 9), (vec![], Err(())));
    }

    #[test]
    fn times_and_identities() {
        let times = [
            ("\"1970-01-01T00:00:01.5Z\"", Some(1_500)),
            ("\"1970-01-01T01:00:00+01:00\"", Some(0)),
            ("1500000000000", Some(1_500_000_000_000)),
            ("1500000000.25", Some(1_500_000_000_250)),
            ("\"yesterday\"", None),
            ("true", None),
            ("{}", None),
            ("-5", None),
        ];
        for (value, expected) in times {
            assert_eq!(time(value), expected, "{value}");
        }
        let identities = [
            ("\"u\"", Some("\"u\"")),
            ("\"\"", None),
            ("17", Some("\"17\"")),
            ("-1", Some("\"-1\"")),
            ("{}", Some("{}")),
        ];
        for (value, expected) in identities {
            assert_eq!(identity(value).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn lines_are_lines() {
        let mut out = Writer::default();
        out.begin();
        out.text("type", "a\"\nb");
        out.raw("none", None);
        out.raw("props", Some("{\r\n\"a\":1}"));
        out.time(Some("\"1970-01-01T00:00:05Z\""), Some(10_000), 17_000);
        out.end();
        out.no_event("5");
        out.no_event("{\"\\ud800\":\n1}");
        let expected = "{\"type\":\"a\\\"\\nb\",\"props\":{  \"a\":1},\"ts\":12000}\n5\n[{\"\\ud800\": 1}]\n";
        assert_eq!(std::str::from_utf8(&out.bytes).unwrap(), expected);
    }
}
