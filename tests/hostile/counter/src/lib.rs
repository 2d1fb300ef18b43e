//! A stateful enricher: every output is the number of rows that its instance has seen, this one included.

use tidemark_plugin::{Enricher, Out, Row, Settings, export_enricher};

struct Counter {
    seen: u64,
}

impl Enricher for Counter {
    const STATEFUL: bool = true;

    fn new(_: &Settings) -> Result<Self, String> {
        Ok(Counter { seen: 0 })
    }

    fn enrich(&mut self, _: Row<'_>, out: &mut Out<'_>) {
        self.seen += 1;
        for output in 0..out.len() {
            out.number(output, self.seen as f64);
        }
    }
}

export_enricher!(Counter);
