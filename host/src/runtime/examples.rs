//! Some of the events that a point counts, found in the host's own journal within limits. Does not know why they are wanted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::engine::judge::Arrival;
use crate::engine::plan::{FieldId, Plan};
use crate::engine::shard::{Input, Looked, Shard};
use crate::ingest::RawBatch;
use crate::ingest::journal::Journal;
use crate::serve::explain::{Example, Wanted};
use crate::serve::tap;
use crate::time::{HOUR_MS, Millis};

/// Of the journal, read for one answer; shared by its lanes.
const BYTES_MAX: usize = 64 << 20;
const WITHIN: Duration = Duration::from_millis(500);
/// Later arrivals are not looked for.
const LATER_MAX_MS: Millis = HOUR_MS;
const EVENT_BYTES_MAX: usize = 64 << 10;

/// By time. What cannot be read is left out.
pub fn find(journal: &Journal, wanted: &Wanted<'_>) -> Vec<Example> {
    let started = Instant::now();
    let definitions = &wanted.active.definitions;
    let Some(filters) = fields_of(&definitions.plan, wanted.filters) else { return Vec::new() };
    let Some(metric) = definitions.plan.metrics.get(wanted.plan_metric) else { return Vec::new() };
    let filter = metric.filter.map(|filter| definitions.plan.filters[filter].clone());
    let mut shard = Shard::new(0, Arc::new(definitions.plan.looking(filter)), EVENT_BYTES_MAX, 0);
    let mut found = Vec::new();
    for lane in 0..journal.lanes() {
        let since = wanted.times.start - definitions.plan.event.ahead_ms;
        let (mut bytes, before) = (0, found.len());
        for batch in journal.read(lane, journal.first_arriving(lane, since)).arriving(since) {
            let Ok((_, batch)) = batch else { break };
            bytes += batch.len;
            let enough = found.len() - before >= wanted.limit || bytes > BYTES_MAX / journal.lanes();
            if enough || batch.arrival > wanted.times.end + LATER_MAX_MS || started.elapsed() > WITHIN {
                break;
            }
            look(&mut shard, &batch, wanted, &filters, before + wanted.limit, &mut found);
        }
    }
    found.sort_by_key(|example| example.time);
    found.truncate(wanted.limit);
    found
}

/// The fields behind dimensions; `None`: there is no such dimension.
fn fields_of<'a>(plan: &Plan, filters: &'a [(String, Vec<String>)]) -> Option<Vec<(FieldId, &'a [String])>> {
    let field = |name: &String| plan.dimensions.iter().find(|it| it.name == *name).map(|it| it.field);
    filters.iter().map(|(name, values)| Some((field(name)?, values.as_slice()))).collect()
}

fn look(
    shard: &mut Shard,
    batch: &RawBatch,
    wanted: &Wanted<'_>,
    filters: &[(FieldId, &[String])],
    most: usize,
    found: &mut Vec<Example>,
) {
    let address = batch.client.address.map(|address| address.to_string());
    let input = Input {
        buffer: &batch.bytes,
        len: batch.len,
        arrival: batch.messages.as_ref().map_or(Arrival::At(batch.arrival), Arrival::Each),
        order: 0,
        address: address.as_deref(),
        user_agent: batch.client.user_agent.as_deref(),
    };
    let plan = shard.plan().clone();
    shard.look(&input, &mut |event: &Looked<'_>| {
        let passes = filters.iter().all(|(field, values)| {
            let text = event.value(*field).map_or("", |entry| &*entry.text);
            values.iter().any(|value| value == text)
        });
        if !passes || !wanted.times.contains(&event.time) || found.len() >= most {
            return;
        }
        let Ok(parsed) = serde_json::from_slice::<Value>(&batch.bytes[event.bytes.clone()]) else { return };
        found.push(Example { time: event.time, event: parsed, filled: tap::filled(event, &plan) });
    });
}
