//! `metrics.toml` checked and completed: every value in its bounds, defaults filled in, names resolved. Expressions are
//! still text here. A faulty entry stays in the lists, so that what refers to it is not called unknown.

use std::collections::HashMap;

use super::definitions::Better;
use super::diagnostic::{Problems, Span, one_of};
use super::file::{DimensionTable, EventTable, File, MetricKeys};
use super::read::{At, Entry, Given, List, Named, Path, Period, check_name, period_text};
use crate::time::{DAY_MS, MINUTE_MS, Millis, SECOND_MS};

pub const METRICS_MAX: usize = 1_000;
pub const DIMENSIONS_MAX: usize = 64;
pub const DIMENSIONS_PER_METRIC_MAX: usize = 16;
pub const COMBINATIONS_DEFAULT: u32 = 50_000;
/// Of a metric with a sketch, unless it says more itself.
pub const SKETCH_COMBINATIONS_DEFAULT: u32 = 1_000;
const COMBINATIONS_MAX: i64 = 1_000_000;
const WINDOW_MAX_MS: Millis = DAY_MS;
const PER_MAX_MS: Millis = 366 * DAY_MS;
const UNIT_CHARS_MAX: usize = 16;
const TITLE_CHARS_MAX: usize = 100;
pub const HEADLINE_DEFAULT: usize = 4;
/// Parameters of `/v1/query` that are no filters.
const RESERVED_DIMENSIONS: [&str; 5] = ["metric", "from", "to", "step", "by"];

pub struct Spec {
    pub event: EventSpec,
    pub dimensions: Vec<DimensionSpec>,
    pub metrics: Vec<MetricSpec>,
    /// Metrics by name: their index.
    pub metric_ids: HashMap<String, usize>,
    /// Metrics that the page puts first; `None`: it is not said.
    pub headline: Option<Vec<At<usize>>>,
}

pub struct EventSpec {
    pub time: Option<Path>,
    pub key: Option<Path>,
    pub id: Option<Path>,
    pub require: Vec<Path>,
    pub dedupe_ms: Millis,
    pub lateness_ms: Millis,
    pub ahead_ms: Millis,
}

pub struct DimensionSpec {
    pub name: String,
    pub path: Path,
    pub limit: Option<u32>,
}

pub struct MetricSpec {
    pub name: At<String>,
    pub title: String,
    /// `None` when it could not be read.
    pub expression: Option<At<String>>,
    /// Its own `by`; indexes of dimensions, with their places.
    pub by: Option<Vec<At<usize>>>,
    /// What it gets without its own: `defaults.by`, or all.
    pub default_by: Vec<usize>,
    pub window_ms: Millis,
    pub per_ms: Option<Millis>,
    /// Its own limit, and that of `defaults`.
    pub limit: Option<u32>,
    pub default_limit: u32,
    pub unit: Option<String>,
    pub better: Option<Better>,
    pub backfill: bool,
    /// Keys that a metric made of metrics cannot have, and where they stand.
    pub of_its_own: Vec<(&'static str, Span)>,
}

pub fn check(file: &File, problems: &mut Problems) -> Spec {
    let event = event(file.event.get().map(|at| &at.value), problems);
    let dimensions = dimensions(named(&file.dimensions), problems);
    let ids: HashMap<_, _> = dimensions.iter().enumerate().map(|(id, d)| (d.name.as_str(), id)).collect();
    let defaults = defaults(file, &ids, problems);
    let entries = named(&file.metrics);
    if entries.is_empty() && !matches!(file.metrics, Given::Broken) {
        let span = file.metrics.get().map_or(0..0, |at| at.span.clone());
        problems
            .add(&span, "no metrics are defined")
            .expected("a table `[metrics]` with at least one entry, as `events = \"count()\"`");
    }
    if let Some(entry) = entries.get(METRICS_MAX) {
        problems.add(&entry.name.span, format!("{} metrics", entries.len())).expected(format!("at most {METRICS_MAX}"));
    }
    let metrics: Vec<_> =
        entries.iter().take(METRICS_MAX).map(|entry| metric(entry, &defaults, &ids, problems)).collect();
    let metric_ids = metrics.iter().enumerate().map(|(id, metric)| (metric.name.value.clone(), id)).collect();
    let headline = headline(file, &metric_ids, problems);
    Spec { event, dimensions, metrics, metric_ids, headline }
}

pub fn named<T>(given: &Given<Named<T>>) -> &[Entry<T>] {
    given.get().map_or(&[], |at| &at.value.0)
}

fn event(table: Option<&EventTable>, problems: &mut Problems) -> EventSpec {
    let none = EventTable::default();
    let table = table.unwrap_or(&none);
    let require = table.require.get().map(|at| at.value.0.as_slice()).unwrap_or_default();
    EventSpec {
        time: table.time.value(),
        key: table.key.value(),
        id: table.id.value(),
        require: require.iter().map(|at| at.value.clone()).collect(),
        dedupe_ms: bounded("dedupe", &table.dedupe, (SECOND_MS, DAY_MS), 10 * MINUTE_MS, problems),
        lateness_ms: bounded("lateness", &table.lateness, (0, DAY_MS), DAY_MS, problems),
        ahead_ms: bounded("ahead", &table.ahead, (0, DAY_MS), 5 * MINUTE_MS, problems),
    }
}

/// A length of time within its bounds.
pub fn bounded(
    key: &str,
    given: &Given<Period>,
    (least, most): (Millis, Millis),
    default: Millis,
    problems: &mut Problems,
) -> Millis {
    let Some(at) = given.get() else { return default };
    let ms = at.value.0;
    if ms < least || ms > most {
        problems.add(&at.span, format!("`{key}` is out of bounds")).expected(format!(
            "from {} to {}",
            period_text(least),
            period_text(most)
        ));
        return default;
    }
    ms
}

fn combinations(given: &Given<i64>, problems: &mut Problems) -> Option<u32> {
    let at = given.get()?;
    if !(1..=COMBINATIONS_MAX).contains(&at.value) {
        problems.add(&at.span, "`limit` is out of bounds").expected("from 1 to 1,000,000");
        return None;
    }
    u32::try_from(at.value).ok()
}

fn dimensions(entries: &[Entry<DimensionTable>], problems: &mut Problems) -> Vec<DimensionSpec> {
    if let Some(entry) = entries.get(DIMENSIONS_MAX) {
        problems
            .add(&entry.name.span, format!("{} dimensions", entries.len()))
            .expected(format!("at most {DIMENSIONS_MAX}"));
    }
    let none = DimensionTable::default();
    let mut list = Vec::new();
    for Entry { name, value } in entries.iter().take(DIMENSIONS_MAX) {
        if check_name("a dimension", name, problems) && RESERVED_DIMENSIONS.contains(&name.value.as_str()) {
            problems
                .add(&name.span, format!("`{}` cannot name a dimension", name.value))
                .expected(format!("any name but {}", RESERVED_DIMENSIONS.map(|name| format!("`{name}`")).join(", ")))
                .help(format!(
                    "queries have a parameter of that name; choose another and say `field = \"{}\"`",
                    name.value
                ));
        }
        let table = value.get().map_or(&none, |at| &at.value);
        list.push(DimensionSpec {
            name: name.value.clone(),
            path: table.field.value().unwrap_or_else(|| Path(vec![name.value.clone()])),
            limit: combinations(&table.limit, problems),
        });
    }
    list
}

struct Defaults {
    by: Vec<usize>,
    window_ms: Millis,
    limit: u32,
}

fn defaults(file: &File, ids: &HashMap<&str, usize>, problems: &mut Problems) -> Defaults {
    let all: Vec<usize> = (0..ids.len()).collect();
    let Some(table) = file.defaults.get().map(|at| &at.value) else {
        return Defaults { by: all, window_ms: MINUTE_MS, limit: COMBINATIONS_DEFAULT };
    };
    let by = by(&table.by, ids, problems).map(|by| by.iter().map(|at| at.value).collect());
    Defaults {
        by: by.unwrap_or(all),
        window_ms: window(&table.window, MINUTE_MS, problems),
        limit: combinations(&table.limit, problems).unwrap_or(COMBINATIONS_DEFAULT),
    }
}

/// Names of dimensions to their indexes; `None` when absent or wrong.
pub fn by(given: &Given<List<String>>, ids: &HashMap<&str, usize>, problems: &mut Problems) -> Option<Vec<At<usize>>> {
    let list = &given.get()?.value.0;
    let mut found: Vec<At<usize>> = Vec::new();
    for At { value: name, span } in list {
        match ids.get(name.as_str()) {
            Some(id) if found.iter().any(|at| at.value == *id) => {
                problems.add(span, format!("the dimension `{name}` stands here twice")).expected("each once");
            }
            Some(id) => found.push(At { value: *id, span: span.clone() }),
            None => {
                let mut names: Vec<_> = ids.iter().collect();
                names.sort_by_key(|(_, id)| **id);
                let names = || names.iter().map(|(name, _)| **name);
                let problem = problems.add(span, format!("there is no dimension `{name}`"));
                if ids.is_empty() {
                    problem
                        .expected("a declared dimension")
                        .help(format!("declare it: `[dimensions]` with `{name} = {{}}`"));
                } else {
                    problem.expected(one_of(names())).suggest(name, names());
                }
            }
        }
    }
    (found.len() == list.len()).then_some(found)
}

fn window(given: &Given<Period>, default: Millis, problems: &mut Problems) -> Millis {
    let Some(at) = given.get() else { return default };
    let ms = at.value.0;
    if ms % MINUTE_MS != 0 || !(MINUTE_MS..=WINDOW_MAX_MS).contains(&ms) {
        problems.add(&at.span, "a window is made of whole minutes").expected("whole minutes from 1m to 24h");
        return default;
    }
    ms
}

fn metric(
    entry: &Entry<super::file::MetricTable>,
    defaults: &Defaults,
    ids: &HashMap<&str, usize>,
    problems: &mut Problems,
) -> MetricSpec {
    let name = &entry.name;
    check_name("a metric", name, problems);
    let none = MetricKeys::default();
    let keys = entry.value.get().map_or(&none, |at| &at.value.0);
    if keys.value.is_absent() && entry.value.get().is_some() {
        problems
            .add(&name.span, format!("`{}` has no `value`", name.value))
            .expected("an expression, as `value = \"count()\"`");
    }
    let spans = [
        ("window", keys.window.key()),
        ("per", keys.per.key()),
        ("limit", keys.limit.key()),
        ("backfill", keys.backfill.key()),
    ];
    MetricSpec {
        name: name.clone(),
        title: text(&keys.title, "title", TITLE_CHARS_MAX, problems).unwrap_or_else(|| in_words(&name.value)),
        expression: keys.value.get().cloned(),
        by: by(&keys.by, ids, problems),
        default_by: defaults.by.clone(),
        window_ms: window(&keys.window, defaults.window_ms, problems),
        per_ms: (!keys.per.is_absent()).then(|| bounded("per", &keys.per, (1, PER_MAX_MS), SECOND_MS, problems)),
        limit: combinations(&keys.limit, problems),
        default_limit: defaults.limit,
        unit: text(&keys.unit, "unit", UNIT_CHARS_MAX, problems),
        better: better(&keys.better, problems),
        backfill: keys.backfill.value().unwrap_or(false),
        of_its_own: spans.into_iter().filter_map(|(key, span)| Some((key, span?))).collect(),
    }
}

fn text(given: &Given<String>, key: &str, chars_max: usize, problems: &mut Problems) -> Option<String> {
    let at = given.get()?;
    let chars = at.value.chars().count();
    if chars == 0 || chars > chars_max || at.value.chars().any(char::is_control) {
        problems
            .add(&at.span, format!("`{key}` is not a line of text"))
            .expected(format!("1 to {chars_max} characters"));
        return None;
    }
    Some(at.value.clone())
}

fn better(given: &Given<String>, problems: &mut Problems) -> Option<Better> {
    let at = given.get()?;
    match at.value.as_str() {
        "up" => Some(Better::Up),
        "down" => Some(Better::Down),
        other => {
            problems
                .add(&at.span, format!("`{other}` is no direction"))
                .expected("`up` or `down`")
                .suggest(other, ["up", "down"]);
            None
        }
    }
}

/// `error_rate` → `Error rate`.
fn in_words(name: &str) -> String {
    let words = name.replace('_', " ");
    let words = words.trim();
    let mut chars = words.chars();
    chars.next().map_or_else(|| name.to_owned(), |first| first.to_uppercase().chain(chars).collect())
}

/// `None`: it is not said.
fn headline(file: &File, ids: &HashMap<String, usize>, problems: &mut Problems) -> Option<Vec<At<usize>>> {
    let list = file.page.get().and_then(|at| at.value.headline.get())?;
    let mut found: Vec<At<usize>> = Vec::new();
    for name in &list.value.0 {
        match find_metric(name, ids, problems) {
            Some(id) if found.iter().any(|at| at.value == id) => {
                problems
                    .add(&name.span, format!("the metric `{}` stands here twice", name.value))
                    .expected("each once");
            }
            Some(id) => found.push(At { value: id, span: name.span.clone() }),
            None => {}
        }
    }
    Some(found)
}

pub fn find_metric(name: &At<String>, ids: &HashMap<String, usize>, problems: &mut Problems) -> Option<usize> {
    let id = ids.get(&name.value).copied();
    if id.is_none() {
        problems
            .add(&name.span, format!("there is no metric `{}`", name.value))
            .expected("the name of a metric")
            .suggest(&name.value, ids.keys().map(String::as_str));
    }
    id
}
