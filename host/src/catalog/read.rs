//! Reading TOML values into types, with the place of each and every error. Knows no key by name.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Problems, Span, one_of};
use crate::time::{DAY_MS, HOUR_MS, MINUTE_MS, Millis, SECOND_MS};

pub const NAME_BYTES_MAX: usize = 64;
pub const PATH_BYTES_MAX: usize = 256;
pub const PATH_SEGMENTS_MAX: usize = 32;
/// Entries of any one list.
pub const LIST_ENTRIES_MAX: usize = 100;

pub const NAME_PATTERN: &str = "^[a-z_][a-z0-9_]*$";

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct At<T> {
    pub value: T,
    pub span: Span,
}

/// What a key says: nothing, something unreadable (already reported), or a value; and where the key itself stands.
#[derive(Debug, Default)]
pub enum Given<T> {
    #[default]
    Absent,
    Broken,
    Value(At<T>, Span),
}

impl<T> Given<T> {
    pub fn get(&self) -> Option<&At<T>> {
        match self {
            Self::Value(at, _) => Some(at),
            Self::Absent | Self::Broken => None,
        }
    }

    /// Where the key stands, if it has a value.
    pub fn key(&self) -> Option<Span> {
        match self {
            Self::Value(_, key) => Some(key.clone()),
            Self::Absent | Self::Broken => None,
        }
    }

    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl<T: Clone> Given<T> {
    pub fn value_or(&self, default: T) -> T {
        self.get().map_or(default, |at| at.value.clone())
    }

    pub fn value(&self) -> Option<T> {
        self.get().map(|at| at.value.clone())
    }
}

/// Reads itself from a value; `None` after having said why not.
pub trait Read: Sized {
    /// What its author is asked for.
    const EXPECTED: &'static str;

    fn read(value: &DeValue<'_>, span: &Span, problems: &mut Problems) -> Option<Self>;
}

pub fn read_given<T: Read>(key: &Span, value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Given<T> {
    match read_at(value, problems) {
        Some(at) => Given::Value(at, key.clone()),
        None => Given::Broken,
    }
}

fn read_at<T: Read>(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<At<T>> {
    let span = value.span();
    T::read(value.get_ref(), &span, problems).map(|value| At { value, span })
}

/// The entries of a table in the order of the text.
pub fn entries<'a, 'i>(table: &'a DeTable<'i>) -> Vec<(At<String>, &'a Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> =
        table.iter().map(|(key, value)| (At { value: key.get_ref().to_string(), span: key.span() }, value)).collect();
    entries.sort_by_key(|(key, _)| key.span.start);
    entries
}

pub fn mismatch(expected: &str, value: &DeValue<'_>, span: &Span, problems: &mut Problems) {
    problems.add(span, format!("wrong type: {}", kind(value))).expected(expected);
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

pub fn unknown_key(key: &At<String>, known: &[&str], problems: &mut Problems) {
    problems
        .add(&key.span, format!("unknown key `{}`", key.value))
        .expected(one_of(known.iter().copied()))
        .suggest(&key.value, known.iter().copied());
}

/// A name of our own: snake case, so that it can stand in an expression, a URL and a file name.
pub fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= NAME_BYTES_MAX
        && bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

pub fn check_name(what: &str, name: &At<String>, problems: &mut Problems) -> bool {
    if is_name(&name.value) {
        return true;
    }
    let problem = problems
        .add(&name.span, format!("`{}` is not a name for {what}", name.value))
        .expected(format!("lower-case letters, digits and `_`, not a digit first, at most {NAME_BYTES_MAX} bytes"));
    let proposal = snake_case(&name.value);
    if is_name(&proposal) {
        problem.help(format!("did you mean `{proposal}`?"));
    }
    false
}

fn snake_case(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_ascii_uppercase() && out.ends_with(|last: char| last.is_ascii_lowercase()) {
            out.push('_');
        }
        out.push(if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
    }
    out.trim_matches('_').to_owned()
}

impl Read for String {
    const EXPECTED: &'static str = "a string";

    fn read(value: &DeValue<'_>, span: &Span, problems: &mut Problems) -> Option<Self> {
        match value {
            DeValue::String(text) => Some(text.to_string()),
            other => {
                mismatch(Self::EXPECTED, other, span, problems);
                None
            }
        }
    }
}

impl Read for bool {
    const EXPECTED: &'static str = "`true` or `false`";

    fn read(value: &DeValue<'_>, span: &Span, problems: &mut Problems) -> Option<Self> {
        match value {
            DeValue::Boolean(value) => Some(*value),
            other => {
                mismatch(Self::EXPECTED, other, span, problems);
                None
            }
        }
    }
}

impl Read for i64 {
    const EXPECTED: &'static str = "a whole number";

    fn read(value: &DeValue<'_>, span: &Span, problems: &mut Problems) -> Option<Self> {
        let DeValue::Integer(integer) = value else {
            mismatch(Self::EXPECTED, value, span, problems);
            return None;
        };
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        if number.is_none() {
            problems.add(span, "the number is too large").expected("a whole number");
        }
        number
    }
}

impl Read for f64 {
    const EXPECTED: &'static str = "a number";

    fn read(value: &DeValue<'_>, span: &Span, problems: &mut Problems) -> Option<Self> {
        let number = match value {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(_) => i64::read(value, span, problems).map(|number| number as f64),
            other => {
                mismatch(Self::EXPECTED, other, span, problems);
                return None;
            }
        };
        match number {
            Some(number) if f64::is_finite(number) => Some(number),
            _ => {
                problems.add(span, "not a finite number").expected("a number");
                None
            }
        }
    }
}

/// A list of values.
#[derive(Clone, Debug, Default)]
pub struct List<T>(pub Vec<At<T>>);

impl<T: Read> Read for List<T> {
    const EXPECTED: &'static str = "a list";

    fn read(value: &DeValue<'_>, span: &Span, problems: &mut Problems) -> Option<Self> {
        let DeValue::Array(array) = value else {
            mismatch(&format!("a list, each entry {}", T::EXPECTED), value, span, problems);
            return None;
        };
        if array.len() > LIST_ENTRIES_MAX {
            problems
                .add(span, format!("a list of {} entries", array.len()))
                .expected(format!("at most {LIST_ENTRIES_MAX}"));
            return None;
        }
        let list: Vec<_> = array.iter().filter_map(|item| read_at(item, problems)).collect();
        (list.len() == array.len()).then_some(Self(list))
    }
}

/// A table whose keys are names given by the author, in the order of the text.
#[derive(Debug, Default)]
pub struct Named<T>(pub Vec<Entry<T>>);

#[derive(Debug)]
pub struct Entry<T> {
    pub name: At<String>,
    pub value: Given<T>,
}

impl<T: Read> Read for Named<T> {
    const EXPECTED: &'static str = "a table";

    fn read(value: &DeValue<'_>, span: &Span, problems: &mut Problems) -> Option<Self> {
        let DeValue::Table(table) = value else {
            mismatch(Self::EXPECTED, value, span, problems);
            return None;
        };
        let entries = entries(table).into_iter();
        Some(Self(
            entries.map(|(name, value)| Entry { value: read_given(&name.span, value, problems), name }).collect(),
        ))
    }
}

/// A length of time as `"10m"`, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Period(pub Millis);

const PERIOD_UNITS: [(&str, Millis); 5] =
    [("ms", 1), ("s", SECOND_MS), ("m", MINUTE_MS), ("h", HOUR_MS), ("d", DAY_MS)];

impl Period {
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at(digits);
        let unit_ms = PERIOD_UNITS.iter().find(|(name, _)| *name == unit)?.1;
        number.parse::<Millis>().ok()?.checked_mul(unit_ms).map(Self)
    }
}

impl Read for Period {
    const EXPECTED: &'static str =
        "a whole number and a unit, as `\"500ms\"`, `\"90s\"`, `\"10m\"`, `\"1h\"` or `\"1d\"`";

    fn read(value: &DeValue<'_>, span: &Span, problems: &mut Problems) -> Option<Self> {
        let DeValue::String(text) = value else {
            mismatch(Self::EXPECTED, value, span, problems);
            return None;
        };
        let period = Self::parse(text);
        if period.is_none() {
            problems.add(span, format!("`{text}` is not a length of time")).expected(Self::EXPECTED);
        }
        period
    }
}

/// For people: the largest unit that divides it, hours up to a day.
pub fn period_text(ms: Millis) -> String {
    let fits = |unit_ms: Millis| ms % unit_ms == 0 && ms >= unit_ms && (unit_ms < DAY_MS || ms > DAY_MS);
    let (unit, unit_ms) = PERIOD_UNITS.iter().rev().find(|(_, unit_ms)| fits(*unit_ms)).unwrap_or(&PERIOD_UNITS[1]);
    format!("{}{unit}", ms / unit_ms)
}

/// A dotted path into an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Path(pub Vec<String>);

impl Path {
    pub fn parse(text: &str) -> Option<Self> {
        let segments: Vec<_> = text.split('.').map(str::to_owned).collect();
        let sound = segments.iter().all(|segment| !segment.is_empty() && segment.trim() == segment);
        (sound && text.len() <= PATH_BYTES_MAX && segments.len() <= PATH_SEGMENTS_MAX).then_some(Self(segments))
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

impl Read for Path {
    const EXPECTED: &'static str = "a path in quotes, as `\"props.amount\"`";

    fn read(value: &DeValue<'_>, span: &Span, problems: &mut Problems) -> Option<Self> {
        let DeValue::String(text) = value else {
            mismatch(Self::EXPECTED, value, span, problems);
            return None;
        };
        let path = Self::parse(text);
        if path.is_none() {
            problems.add(span, format!("`{text}` is not a path into an event")).expected(format!(
                "names joined by dots as `props.amount`, at most {PATH_SEGMENTS_MAX} of them and {PATH_BYTES_MAX} bytes"
            ));
        }
        path
    }
}

/// A plugin's settings, as the JSON object it is handed.
#[derive(Clone, Debug, PartialEq)]
pub struct Config(pub String);

impl Read for Config {
    const EXPECTED: &'static str = "a table, as `{ key = \"value\" }`";

    fn read(value: &DeValue<'_>, span: &Span, problems: &mut Problems) -> Option<Self> {
        if !matches!(value, DeValue::Table(_)) {
            mismatch(Self::EXPECTED, value, span, problems);
            return None;
        }
        Some(Self(json(value, span, problems)?.to_string()))
    }
}

fn json(value: &DeValue<'_>, span: &Span, problems: &mut Problems) -> Option<serde_json::Value> {
    Some(match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(_) => i64::read(value, span, problems)?.into(),
        DeValue::Float(_) => f64::read(value, span, problems)?.into(),
        DeValue::Boolean(value) => (*value).into(),
        DeValue::Datetime(value) => value.to_string().into(),
        DeValue::Array(array) => {
            let items = array.iter().map(|item| json(item.get_ref(), &item.span(), problems));
            serde_json::Value::Array(items.collect::<Option<_>>()?)
        }
        DeValue::Table(table) => {
            let mut object = serde_json::Map::new();
            for (key, value) in table {
                object.insert(key.get_ref().to_string(), json(value.get_ref(), &value.span(), problems)?);
            }
            serde_json::Value::Object(object)
        }
    })
}

/// Schemas of the types above: what an editor is told.
macro_rules! schema {
    ([$($generic:ident)?] $type:ty, |$generator:ident| $schema:expr) => {
        impl$(<$generic: JsonSchema>)? JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

schema!([T] Given<T>, |generator| T::json_schema(generator));
schema!([T] List<T>, |generator| json_schema!({
    "type": "array", "items": T::json_schema(generator), "maxItems": LIST_ENTRIES_MAX
}));
schema!([T] Named<T>, |generator| json_schema!({
    "type": "object", "propertyNames": {"pattern": NAME_PATTERN, "maxLength": NAME_BYTES_MAX},
    "additionalProperties": generator.subschema_for::<T>()
}));
schema!([] Period, |_generator| json_schema!({"type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$"}));
schema!([] Path, |_generator| json_schema!({"type": "string", "pattern": r"^[^.\s]+(\.[^.\s]+)*$", "maxLength": PATH_BYTES_MAX}));
schema!([] Config, |_generator| json_schema!({"type": "object"}));
