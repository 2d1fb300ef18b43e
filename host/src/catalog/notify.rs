//! Who is told of anomalies: `[notify.*]` checked against the metrics that anomaly rules judge.

use std::collections::HashSet;

use super::definitions::{Notify, TargetKind};
use super::diagnostic::{Problems, Span, one_of};
use super::file::{File, NotifyTable};
use super::read::{At, Entry, Given, check_name};
use super::spec::{Spec, bounded, find_metric, named};
use crate::time::{DAY_MS, HOUR_MS, MINUTE_MS, Millis};

pub const NOTIFY_MAX: usize = 20;
pub const REPEAT_DEFAULT_MS: Millis = 4 * HOUR_MS;
const REPEAT_MAX_MS: Millis = 30 * DAY_MS;
const URL_BYTES_MAX: usize = 2_000;
const KINDS: [&str; 3] = ["webhook", "alertmanager", "slack"];

pub fn check(file: &File, spec: &Spec, problems: &mut Problems) -> Vec<Notify> {
    let entries = named(&file.notify);
    if let Some(entry) = entries.get(NOTIFY_MAX) {
        problems.add(&entry.name.span, format!("{} targets", entries.len())).expected(format!("at most {NOTIFY_MAX}"));
    }
    let judged = judged(file);
    entries.iter().take(NOTIFY_MAX).filter_map(|entry| target(entry, spec, &judged, problems)).collect()
}

/// Names of the metrics that rules judge, as typed: a rule with an error of its own judges one too.
fn judged(file: &File) -> HashSet<&str> {
    let mut judged = HashSet::new();
    for Entry { name, value } in named(&file.anomalies) {
        let stated = value.get().and_then(|at| at.value.metric.get());
        judged.insert(stated.unwrap_or(name).value.as_str());
    }
    judged
}

fn target(entry: &Entry<NotifyTable>, spec: &Spec, judged: &HashSet<&str>, problems: &mut Problems) -> Option<Notify> {
    let name = &entry.name;
    let table = &entry.value.get()?.value;
    check_name("a target", name, problems);
    let when = when(name, table, spec, judged, problems);
    let kind = kind(name, table, problems);
    let for_ms = bounded("for", &table.r#for, (0, DAY_MS), 0, problems);
    let repeat_ms = bounded("repeat", &table.repeat, (MINUTE_MS, REPEAT_MAX_MS), REPEAT_DEFAULT_MS, problems);
    let (kind, url) = kind?;
    if let (TargetKind::Alertmanager, Some(key)) = (kind, table.repeat.key()) {
        problems
            .add(&key, "an Alertmanager repeats as it is told itself")
            .expected("no `repeat`")
            .help("its own setting is `repeat_interval`");
    }
    Some(Notify { name: name.value.clone(), kind, url, when, for_ms, repeat_ms })
}

/// The metrics that are meant; `None`: all that are judged.
fn when(
    name: &At<String>,
    table: &NotifyTable,
    spec: &Spec,
    judged: &HashSet<&str>,
    problems: &mut Problems,
) -> Option<Vec<usize>> {
    let Some(list) = table.when.get() else {
        if judged.is_empty() && table.when.is_absent() {
            problems
                .add(&name.span, format!("nothing to tell `{}` of: there are no anomaly rules", name.value))
                .expected("a table `[anomalies]` with at least one rule");
        }
        return None;
    };
    if list.value.0.is_empty() {
        problems.add(&list.span, "an empty list: it is never told").expected("names of metrics, or no `when` for all");
    }
    let mut found = Vec::new();
    for metric in &list.value.0 {
        let Some(id) = find_metric(metric, &spec.metric_ids, problems) else { continue };
        if !judged.contains(metric.value.as_str()) {
            problems
                .add(&metric.span, format!("no anomaly rule judges `{}`", metric.value))
                .expected("a metric that `[anomalies]` has a rule for");
        }
        found.push(id);
    }
    Some(found)
}

fn kind(name: &At<String>, table: &NotifyTable, problems: &mut Problems) -> Option<(TargetKind, url::Url)> {
    let stated = [
        (TargetKind::Webhook, &table.webhook),
        (TargetKind::Alertmanager, &table.alertmanager),
        (TargetKind::Slack, &table.slack),
    ];
    if stated.iter().any(|(_, given)| matches!(given, Given::Broken)) {
        return None;
    }
    let mut given: Vec<(TargetKind, &At<String>, Span)> =
        stated.iter().filter_map(|(kind, given)| Some((*kind, given.get()?, given.key()?))).collect();
    given.sort_by_key(|(_, _, key)| key.start);
    match &given[..] {
        [] => {
            problems.add(&name.span, format!("`notify.{}` has no address", name.value)).expected(one_of(KINDS));
            None
        }
        [(kind, at, _)] => url(at, problems).map(|url| (*kind, url)),
        [(first, ..), others @ ..] => {
            for (other, _, key) in others {
                problems.add(key, format!("both `{}` and `{}`", first.name(), other.name())).expected(format!(
                    "one of the two; a table of its own, as `[notify.{}_2]`, for the other",
                    name.value
                ));
            }
            None
        }
    }
}

fn url(at: &At<String>, problems: &mut Problems) -> Option<url::Url> {
    const EXPECTED: &str = "a whole address, as `http://127.0.0.1:9000/hook` or `https://…`";
    let mut refuse = |why: String| {
        let problem = problems.add(&at.span, why).expected(EXPECTED);
        if !at.value.contains("://") && url::Url::parse(&format!("http://{}", at.value)).is_ok() {
            problem.help(format!("did you mean `http://{}`?", at.value));
        }
        None
    };
    if at.value.len() > URL_BYTES_MAX {
        return refuse(format!("an address of {} bytes: at most {URL_BYTES_MAX} are taken", at.value.len()));
    }
    match url::Url::parse(&at.value) {
        Err(error) if at.value.contains("://") => refuse(format!("`{}` is no address: {error}", at.value)),
        Err(_) => refuse(format!("`{}` is no address", at.value)),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            refuse(format!("`{}` is not spoken: http and https are", url.scheme()))
        }
        Ok(url) if url.fragment().is_some() => refuse("an address with a part behind `#`, which is never sent".into()),
        Ok(url) => Some(url),
    }
}
