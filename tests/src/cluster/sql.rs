//! What SQL says in ClickHouse of what was sent, as anybody would ask.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tidemark_services::Service;

use super::Sent;
use super::members::NAME;
use crate::clickhouse::ask;
use crate::host::{until, until_within};

/// One host writes history, and another takes its place when it was silent for a minute.
const WRITTEN_WITHIN: Duration = Duration::from_secs(150);

/// Events and amount by batch.
type Found = BTreeMap<String, (u64, u64)>;

fn expected(sent: &Sent) -> Found {
    sent.values().flatten().map(|batch| (batch.name.clone(), (batch.events as u64, batch.amount))).collect()
}

fn events(found: &Found) -> u64 {
    found.values().map(|(events, _)| events).sum()
}

/// Rows of a batch, a count and an amount.
fn found(clickhouse: &Service, sql: &str) -> Result<Found> {
    let text = ask(clickhouse, sql)?;
    let row = |line: &str| {
        let [batch, events, amount] = line.split('\t').collect::<Vec<_>>()[..] else { return None };
        Some((batch.to_owned(), (events.parse().ok()?, amount.parse().ok()?)))
    };
    text.lines().map(|line| row(line).with_context(|| line.to_owned())).collect()
}

fn compare(what: &str, expected: &Found, found: &Found) -> Result<()> {
    let wrong = expected.iter().filter(|(batch, counts)| found.get(*batch) != Some(counts));
    let mut wrong: Vec<_> = wrong.map(|(batch, counts)| (batch, Some(counts), found.get(batch))).collect();
    wrong.extend(found.iter().filter(|(batch, _)| !expected.contains_key(*batch)).map(|(at, it)| (at, None, Some(it))));
    ensure!(wrong.is_empty(), "{what}: (batch, sent, found) {:?} and so on, {} in all", wrong.first(), wrong.len());
    Ok(())
}

/// Every event once in the table of raw events.
pub fn raw(clickhouse: &Service, sent: &Sent) -> Result<()> {
    let expected = expected(sent);
    let least = events(&expected);
    let mut last = String::new();
    until("raw events", || {
        // Emptied, it has no tables until somebody writes.
        let count = ask(clickhouse, &format!("SELECT count() FROM {NAME}.events"));
        last = count.unwrap_or_else(|error| error.to_string());
        Ok(last.parse::<u64>().is_ok_and(|count| count >= least).then_some(()))
    })
    .with_context(|| format!("{last} of {least}"))?;
    let sql = format!(
        "SELECT JSONExtractString(event, 'batch') AS batch, count(), toUInt64(sum(JSONExtractFloat(event, 'x'))) \
        FROM {NAME}.events GROUP BY batch"
    );
    compare("raw events", &expected, &found(clickhouse, &sql)?)?;
    let ids = ask(clickhouse, &format!("SELECT uniqExact(JSONExtractString(event, 'id')) FROM {NAME}.events"))?;
    ensure!(ids == least.to_string(), "raw events have {ids} ids instead of {least}");
    Ok(())
}

/// Every event once in history, by minutes and by hours.
pub fn history(clickhouse: &Service, sent: &Sent) -> Result<()> {
    let expected = expected(sent);
    for table in ["minutes", "hours"] {
        let sql = format!(
            "SELECT batch, sumIf(count, metric = 'events'), toUInt64(sumIf(sum, metric = 'amount')) \
            FROM {NAME}.{table} FINAL WHERE metric IN ('events', 'amount') AND part = '' GROUP BY batch HAVING sum(count) > 0"
        );
        let mut last = Found::new();
        let written = until_within(WRITTEN_WITHIN, "history", || {
            last = found(clickhouse, &sql).unwrap_or_default();
            Ok((last == expected).then_some(()))
        });
        if written.is_err() {
            compare(table, &expected, &last)?;
        }
        let total = ask(
            clickhouse,
            &format!("SELECT sum(count) FROM {NAME}.{table} FINAL WHERE metric = 'total' AND part = ''"),
        )?;
        ensure!(total == events(&expected).to_string(), "{table}: the total is {total}");
    }
    Ok(())
}
