//! Raw events as counted, in the table `events`. A block is the events of certain ranges of sources: sent again, with the same
//! ranges, it is there once. Knows columns; not which lines of a batch count.

use std::collections::BTreeMap;

use super::ClickHouse;
use super::connection::quoted;
use super::rows::{all, put_bytes};
use crate::engine::delta::SourceId;
use crate::store::StoreError;
use crate::time::Millis;

/// `[from, to)` of one source.
pub type RawRange = (SourceId, u64, u64);

const COLUMNS: &str = "time, arrival, key, event, address, user_agent, origin, source, position, line";

/// One event as it came.
pub struct RawEvent<'e> {
    pub time: Millis,
    pub arrival: Millis,
    /// Whom it is about; empty: nobody.
    pub key: &'e [u8],
    /// JSON.
    pub event: &'e [u8],
    /// Empty: not known.
    pub address: &'e str,
    pub user_agent: &'e str,
    /// Where it stood: source, position of its batch, line in it.
    pub place: (SourceId, u64, u32),
}

/// Events on their way.
pub struct RawEvents {
    /// Whose sources these are: hosts with journals of their own have sources of equal numbers.
    origin: String,
    rows: Vec<u8>,
    count: usize,
    last: Vec<(SourceId, u64)>,
}

impl RawEvents {
    pub fn new(origin: &str) -> Self {
        Self { origin: origin.to_owned(), rows: Vec::new(), count: 0, last: Vec::new() }
    }

    pub fn push(&mut self, event: &RawEvent<'_>) {
        let rows = &mut self.rows;
        rows.extend_from_slice(&event.time.to_le_bytes());
        rows.extend_from_slice(&event.arrival.to_le_bytes());
        put_bytes(rows, event.key);
        put_bytes(rows, event.event);
        put_bytes(rows, event.address.as_bytes());
        put_bytes(rows, event.user_agent.as_bytes());
        put_bytes(rows, self.origin.as_bytes());
        let (source, position, line) = event.place;
        rows.extend_from_slice(&source.to_le_bytes());
        rows.extend_from_slice(&position.to_le_bytes());
        rows.extend_from_slice(&line.to_le_bytes());
        self.count += 1;
        match self.last.last_mut() {
            Some(last) if last.0 == source => last.1 = position,
            _ => self.last.push((source, position)),
        }
    }

    /// The position of the last event of each source that has some. Sources came one behind the other.
    pub fn last_positions(&self) -> &[(SourceId, u64)] {
        &self.last
    }

    pub fn bytes(&self) -> usize {
        self.rows.len()
    }

    pub fn count(&self) -> usize {
        self.count
    }
}

impl ClickHouse {
    /// Writes the counted events of these ranges, in one block. `Ok`: they are there, and once.
    pub fn append(&self, ranges: &[RawRange], events: &RawEvents) -> Result<(), StoreError> {
        self.prepare()?;
        if events.count == 0 {
            return Ok(());
        }
        let text: Vec<String> = ranges.iter().map(|(source, from, to)| format!("{source}:{from}-{to}")).collect();
        let token = format!("events-{}-{}", events.origin, text.join(","));
        self.connection.insert(&format!("{} ({COLUMNS})", self.schema.table("events")), &token, &events.rows)
    }

    /// By source the last position that has arrived of this origin, and its arrival.
    pub fn last_positions(&self, origin: &str) -> Result<BTreeMap<SourceId, (u64, Millis)>, StoreError> {
        self.prepare()?;
        // The table's projection answers it: nothing is scanned.
        let sql = format!(
            "SELECT source, max(position), toUInt64(toUnixTimestamp64Milli(argMax(arrival, position))) \
            FROM {} WHERE origin = {} GROUP BY source",
            self.schema.table("events"),
            quoted(origin)
        );
        let bytes = self.connection.fetch_all(&sql)?;
        let rows = all(&bytes, |row| Some((row.u32()?, (row.u64()?, row.u64()? as Millis))))?;
        Ok(rows.into_iter().collect())
    }
}
