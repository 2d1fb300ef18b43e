//! Lines of the log → rows of the table `events`. Knows which fields are an event's time and key; not where lines come from, nor
//! why some were not counted.

use std::ops::Range;

use crate::engine::decode::{Decoder, Kind, Rows, Value};
use crate::engine::delta::SourceId;
use crate::engine::plan::Plan;
use crate::engine::timestamp;
use crate::ingest::RawBatch;
use crate::store::clickhouse::{RawEvent, RawEvents};
use crate::time::Millis;

const ROWS_AT_ONCE: usize = 1024;

/// Makes the rows of one block.
pub struct Reading {
    decoder: Decoder,
    rows: Rows,
    /// Columns of the decoder.
    time: Option<usize>,
    key: Option<usize>,
    pub events: RawEvents,
}

/// Lines that came together.
struct Lines<'b> {
    bytes: &'b [u8],
    range: Range<usize>,
    source: SourceId,
    position: u64,
    arrival: Millis,
    address: &'b str,
    user_agent: &'b str,
}

impl Reading {
    pub fn new(plan: &Plan, event_bytes_max: usize, origin: &str) -> Self {
        let path = |field: Option<usize>| field.map(|field| plan.fields[field].path.clone());
        let paths: Vec<Vec<String>> = [path(plan.event.time), path(plan.event.key)].into_iter().flatten().collect();
        Self {
            decoder: Decoder::new(&paths, event_bytes_max),
            rows: Rows::default(),
            time: plan.event.time.map(|_| 0),
            key: plan.event.key.map(|_| paths.len() - 1),
            events: RawEvents::new(origin),
        }
    }

    /// A batch of the journal, or of messages, without the lines that were not counted: where they begin in the batch or
    /// message at a position, ascending.
    pub fn add(&mut self, source: SourceId, position: u64, batch: &RawBatch, uncounted: &[(u64, u32)]) {
        let Some(messages) = &batch.messages else {
            let address = batch.client.address.map(|address| address.to_string()).unwrap_or_default();
            let lines = Lines {
                bytes: &batch.bytes,
                range: 0..batch.len,
                source,
                position,
                arrival: batch.arrival,
                address: &address,
                user_agent: batch.client.user_agent.as_deref().unwrap_or_default(),
            };
            return self.add_lines(&lines, uncounted);
        };
        for at in 0..messages.len() as u32 {
            let message = messages.get(at);
            let lines = Lines {
                bytes: &batch.bytes,
                range: messages.start(at) as usize..message.end as usize,
                source,
                position: message.position,
                arrival: message.arrival,
                address: messages.address(at).unwrap_or_default(),
                user_agent: messages.user_agent(at).unwrap_or_default(),
            };
            self.add_lines(&lines, uncounted);
        }
    }

    fn add_lines(&mut self, lines: &Lines<'_>, uncounted: &[(u64, u32)]) {
        let Lines { bytes, range, position, .. } = lines;
        let (mut at, mut line) = (range.start, 0);
        while at < range.end {
            self.decoder.decode(bytes, range.end, &mut at, &mut line, ROWS_AT_ONCE, &mut self.rows);
            let rows = &self.rows;
            let counted = |row: &usize| {
                let start = rows.start[*row] - range.start as u32;
                uncounted.is_empty() || uncounted.binary_search(&(*position, start)).is_err()
            };
            for row in (0..rows.len).filter(counted) {
                let value = |column: Option<usize>| column.map_or(Value::MISSING, |column| rows.column(column)[row]);
                let key = value(self.key);
                self.events.push(&RawEvent {
                    time: time(rows, bytes, value(self.time)).unwrap_or(lines.arrival),
                    arrival: lines.arrival,
                    key: if key.kind() > Kind::Null { rows.bytes(bytes, key) } else { b"" },
                    event: bytes[rows.start[row] as usize..rows.end[row] as usize].trim_ascii(),
                    address: lines.address,
                    user_agent: lines.user_agent,
                    place: (lines.source, *position, rows.line[row]),
                });
            }
        }
    }
}

fn time(rows: &Rows, buffer: &[u8], value: Value) -> Option<Millis> {
    match value.kind() {
        Kind::Number => timestamp::from_number(rows.bytes(buffer, value)),
        Kind::Text => timestamp::from_text(rows.bytes(buffer, value)),
        _ => None,
    }
}
