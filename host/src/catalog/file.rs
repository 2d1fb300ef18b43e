//! `metrics.toml` as its author typed it: which keys there are and of what type. Knows nothing of what they mean together.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Problems, Span, one_of};
use super::read::{
    At, Config, Given, List, NAME_PATTERN, Named, Path, Period, Read, entries, mismatch, read_given, unknown_key,
};

/// A table of known keys: the type, its reader and its schema from one list.
macro_rules! table {
    ($(#[$meta:meta])* $name:ident, $expected:literal { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        #[derive(Debug, Default, JsonSchema)]
        #[schemars(deny_unknown_fields, default)]
        $(#[$meta])*
        pub struct $name {
            $($(#[$field_meta])* pub $field: Given<$type>,)*
        }

        impl Read for $name {
            const EXPECTED: &'static str = $expected;

            fn read(value: &DeValue<'_>, span: &Span, problems: &mut Problems) -> Option<Self> {
                let DeValue::Table(table) = value else {
                    mismatch(Self::EXPECTED, value, span, problems);
                    return None;
                };
                let mut read = Self::default();
                for (key, value) in entries(table) {
                    match key.value.as_str() {
                        $(name if name == key_of(stringify!($field)) => read.$field = read_given(&key.span, value, problems),)*
                        _ => refuse_key(&key, &[$(key_of(stringify!($field))),*], problems),
                    }
                }
                Some(read)
            }
        }
    };
}

/// `override` is a word of Rust's own.
fn key_of(field: &'static str) -> &'static str {
    field.strip_prefix("r#").unwrap_or(field)
}

fn refuse_key(key: &At<String>, known: &[&str], problems: &mut Problems) {
    let has = |name: &str| known.contains(&name);
    match key.value.as_str() {
        "where" if has("value") => {
            problems
                .add(&key.span, "unknown key `where`")
                .expected(one_of(known.iter().copied()))
                .help("a condition is part of the expression: `value = \"count() where …\"`");
        }
        _ => unknown_key(key, known, problems),
    }
}

table! {
    /// What Tidemark measures: read by `tidemark run`, `check` and `replay`.
    File, "tables" {
        /// How an event is read.
        event: EventTable,
        /// Plugins that turn fields into fields.
        enrich: Named<EnrichTable>,
        /// What metrics can be split and filtered by.
        dimensions: Named<DimensionTable>,
        /// What a metric gets that does not say otherwise.
        defaults: DefaultsTable,
        /// A metric is a SQL select expression.
        metrics: Named<MetricTable>,
        /// What the web page puts first.
        page: PageTable,
        /// Anomaly rules: the key is the metric, or `metric` names it.
        anomalies: Named<AnomalyTable>,
        /// Who is told of anomalies.
        notify: Named<NotifyTable>,
    }
}

table! {
    /// How an event is read; dotted paths into the JSON object.
    EventTable, "a table, as `[event]`" {
        /// Its time: RFC 3339, or a Unix number (s below 1e11, ms below 1e14, us below 1e17, else ns). Absent: arrival time.
        time: Path,
        /// Whom the event is about; orders events per key.
        key: Path,
        /// An event whose id was seen before is dropped and counted.
        id: Path,
        /// How long after its arrival an id is remembered. Default 10m.
        dedupe: Period,
        /// An event without these is rejected.
        require: List<Path>,
        /// Older than this at its arrival: late. Default and most 24h.
        lateness: Period,
        /// Further in the future than this at its arrival: rejected. Default 5m.
        ahead: Period,
    }
}

table! {
    /// A plugin that turns fields into fields.
    #[schemars(extend("required" = ["plugin", "input", "output"]))]
    EnrichTable, "a table with `plugin`, `input` and `output`" {
        /// `NAME` for `plugins/NAME.wasm`.
        #[schemars(regex(pattern = NAME_PATTERN))]
        plugin: String,
        /// The fields handed to it, in its order.
        input: List<Path>,
        /// The fields it answers with.
        output: List<Path>,
        /// The only files it can read, below the plugin folder.
        files: List<String>,
        /// Settings handed to it.
        config: Config,
        /// Its outputs replace what the event brings; else they only fill what is missing. Default false.
        r#override: bool,
    }
}

table! {
    /// A field, or an enrichment's output.
    DimensionTable, "a table, as `{}` or `{ field = \"props.category\" }`" {
        /// The field it reads. Default: the field of its name.
        field: Path,
        /// Distinct values a day; the rest become `__other__`.
        #[schemars(range(min = 1, max = 1_000_000))]
        limit: i64,
    }
}

table! {
    /// What a metric gets that does not say otherwise.
    DefaultsTable, "a table, as `[defaults]`" {
        /// Dimensions. Default: all.
        by: List<String>,
        /// The time a point looks back over: whole minutes from 1m to 24h. Default 1m.
        window: Period,
        /// Combinations of dimension values that a metric keeps a day. Default 50,000; metrics with a sketch at most 1,000.
        #[schemars(range(min = 1, max = 1_000_000))]
        limit: i64,
    }
}

/// A metric: its expression, or a table with more about it.
#[derive(Debug, Default)]
pub struct MetricTable(pub MetricKeys);

table! {
    /// A metric and how it is kept and shown.
    #[schemars(extend("required" = ["value"]))]
    MetricKeys, "a table with `value`" {
        /// A SQL select expression: `count() where type = 'error'`.
        value: String,
        /// The time a point looks back over: whole minutes from 1m to 24h.
        window: Period,
        /// The value as a rate per this time: `"1s"`.
        per: Period,
        /// Dimensions it can be split by. Default: `defaults.by`.
        by: List<String>,
        /// Combinations of dimension values kept a day.
        #[schemars(range(min = 1, max = 1_000_000))]
        limit: i64,
        /// Shown with values; `%` shows a fraction × 100.
        unit: String,
        /// Shown name. Default: the name in words.
        title: String,
        /// Which direction is good: `up` or `down`.
        #[schemars(extend("enum" = ["up", "down"]))]
        better: String,
        /// A new metric is counted backwards from the log too, as far as that reaches. Default false.
        backfill: bool,
    }
}

impl Read for MetricTable {
    const EXPECTED: &'static str = "an expression in quotes, or a table with `value`";

    fn read(value: &DeValue<'_>, span: &Span, problems: &mut Problems) -> Option<Self> {
        match value {
            DeValue::String(text) => {
                let value = Given::Value(At { value: text.to_string(), span: span.clone() }, span.clone());
                Some(Self(MetricKeys { value, ..MetricKeys::default() }))
            }
            DeValue::Table(_) => MetricKeys::read(value, span, problems).map(Self),
            other => {
                mismatch(Self::EXPECTED, other, span, problems);
                None
            }
        }
    }
}

impl JsonSchema for MetricTable {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Metric".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "string", "description": "A SQL select expression: `count() where type = 'error'`."},
            generator.subschema_for::<MetricKeys>(),
        ]})
    }
}

table! {
    /// What the web page puts first.
    PageTable, "a table, as `[page]`" {
        /// Metrics, in order. Default: the first four.
        headline: List<String>,
    }
}

table! {
    /// An anomaly rule: built in (`rule`) or of a plugin (`plugin`).
    AnomalyTable, "a table, as `{ rule = \"zscore\" }` or `{ plugin = \"seasonal\" }`" {
        /// The metric it judges. Default: the metric of the rule's name.
        metric: String,
        /// A built-in rule.
        #[schemars(extend("enum" = ["zscore", "threshold", "absent"]))]
        rule: String,
        /// A detector plugin.
        #[schemars(regex(pattern = NAME_PATTERN))]
        plugin: String,
        /// Judged series. Default: the total.
        by: List<String>,
        /// `zscore`: standard deviations. Default 2.0.
        threshold: f64,
        /// `absent`: so long without an event, in whole minutes from 1m to 24h.
        r#for: Period,
        /// `zscore`: how much before a point is looked at; `absent`: a series with an event in that time is missed. From 1h to 7d. Default 24h.
        baseline: Period,
        /// `threshold`: a value above this is an anomaly.
        above: f64,
        /// `threshold`: a value below this is an anomaly.
        below: f64,
        /// A plugin's settings.
        config: Config,
    }
}

table! {
    /// Who is told of anomalies: exactly one of `webhook`, `alertmanager` and `slack`.
    #[schemars(extend("oneOf" = [{"required": ["webhook"]}, {"required": ["alertmanager"]}, {"required": ["slack"]}]))]
    NotifyTable, "a table with one of `webhook`, `alertmanager` and `slack`" {
        /// An address that is sent JSON by POST.
        #[schemars(regex(pattern = "^https?://"))]
        webhook: String,
        /// An Alertmanager, as `http://127.0.0.1:9093`.
        #[schemars(regex(pattern = "^https?://"))]
        alertmanager: String,
        /// An incoming webhook of Slack, or of what is compatible with it.
        #[schemars(regex(pattern = "^https?://"))]
        slack: String,
        /// Anomalies of these metrics. Default: all.
        when: List<String>,
        /// Only anomalies that last as long, up to 24h. Default: all.
        r#for: Period,
        /// What still lasts is told again after this time, 1m to 30d. Default 4h.
        repeat: Period,
    }
}

/// `None` when it is not TOML at all.
pub fn read(text: &str, problems: &mut Problems) -> Option<File> {
    let (table, errors) = DeTable::parse_recoverable(text);
    // After a syntax error the rest is guesswork of the library; a key given twice is an error of its own.
    let twice = errors.iter().all(|error| error.message() == "duplicate key");
    for error in &errors[..if twice { errors.len() } else { 1 }] {
        let span = error.span().unwrap_or(text.len()..text.len());
        let (message, expected) = error.message().split_once(", expected ").unwrap_or((error.message(), "TOML"));
        problems.add(&span, message).expected(if twice { "each key and table once" } else { expected });
    }
    if !errors.is_empty() {
        return None;
    }
    let span = table.span();
    File::read(&DeValue::Table(table.into_inner()), &span, problems)
}

/// JSON Schema of `metrics.toml` for editors.
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(File);
    schema.insert("title".to_owned(), "Tidemark metrics.toml".into());
    schema.to_value()
}
