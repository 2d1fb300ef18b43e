//! A stateful enricher: every output is the number of rows that its instance has seen, this one included.
//! The input text `panic` makes it panic: the SDK must say so in the host's log.

use tidemark_plugin::{Enricher, Out, Row, Settings, export_enricher};

struct Counter {
    seen: u64,
}

impl Enricher for Counter {
    const STATEFUL: bool = true;

    fn new(_: &Settings) -> Result<Self, String> {
        Ok(Counter { seen: 0 })
    }

    fn enrich(&mut self, row: Row<'_>, out: &mut Out<'_>) {
        assert!(row.text(0) != Some("panic"), "asked to panic after {} rows", self.seen);
        self.seen += 1;
        for output in 0..out.len() {
            out.number(output, self.seen as f64);
        }
    }
}

export_enricher!(Counter);
