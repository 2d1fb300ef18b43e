//! An intake for tests: takes what it is given, and says what it took.

use std::sync::Mutex;

use super::{Intake, RawBatch, Receipt, Refusal};

/// Accepts lines that begin with `{`.
#[derive(Default)]
pub struct FakeIntake {
    pub batches: Mutex<Vec<RawBatch>>,
    pub refusal: Option<Refusal>,
}

impl Intake for FakeIntake {
    async fn submit(&self, batch: RawBatch) -> Result<Receipt, Refusal> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        let mut receipt = Receipt::default();
        let lines = batch.bytes[..batch.len].split(|&b| b == b'\n').filter(|line| !line.trim_ascii().is_empty());
        for (index, line) in lines.enumerate() {
            if line.trim_ascii().starts_with(b"{") && !line.contains(&1) {
                receipt.accepted += 1;
            } else {
                receipt.rejected += 1;
                receipt.errors.push((index as u64, "no object".into()));
            }
        }
        self.batches.lock().unwrap().push(batch);
        Ok(receipt)
    }
}
