//! Judges lines of the log as they were judged when they were counted, where nobody knows that any more: their raw events have
//! arrived once, are gone, and are to be sent again. Knows ids only as far back as it is given lines.

use std::sync::Arc;

use crate::engine::dedupe::Dedupe;
use crate::engine::delta::{SourceId, Uncounted};
use crate::engine::plan::Plan;
use crate::engine::shard::Shard;
use crate::ingest::RawBatch;
use crate::runtime::shards;

pub struct Judging {
    shard: Shard,
    ids: Dedupe,
    span_ms: i64,
}

impl Judging {
    pub fn new(plan: &Arc<Plan>, event_bytes_max: usize) -> Self {
        let span_ms = plan.event.dedupe_ms;
        Self { shard: Shard::new(0, plan.clone(), event_bytes_max, 0), ids: Dedupe::new(span_ms), span_ms }
    }

    /// The lines of the next batch that do not count, ascending.
    pub fn uncounted(&mut self, source: SourceId, position: u64, batch: &RawBatch) -> Vec<Uncounted> {
        let address = batch.client.address.map(|address| address.to_string());
        let starts = self.shard.judge(&shards::input(batch, address.as_deref(), 0), &mut &self.ids);
        self.ids.maintain(batch.arrival, self.span_ms);
        let mut lines: Vec<Uncounted> =
            starts.iter().map(|start| shards::uncounted(source, position, batch, *start)).collect();
        lines.sort_unstable();
        lines
    }
}
