//! Jobs that one host at a time does: writing history, dropping what is old, telling of anomalies.

use super::link::{Function, Link};
use super::value;
use crate::store::StoreError;

/// Holds a job for a while; to be taken again well before that is over. Another host gets it when it is not.
pub struct Lease {
    job: String,
    holder: String,
    ms: u64,
}

impl Lease {
    pub fn new(job: &str, ms: u64) -> Self {
        Self { job: job.to_owned(), holder: format!("{:016x}", rand::random::<u64>()), ms }
    }

    pub fn job(&self) -> &str {
        &self.job
    }

    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// The fencing number under which it is held; `None`: another host holds it. What is written under a lower number than
    /// somebody has seen comes from one that held it before.
    pub fn take(&self, link: &mut Link) -> Result<Option<u64>, StoreError> {
        let fence: u64 = value::number(&self.call(link, self.ms)?)?;
        Ok((fence > 0).then_some(fence))
    }

    pub fn give_back(&self, link: &mut Link) -> Result<(), StoreError> {
        self.call(link, 0).map(drop)
    }

    fn call(&self, link: &mut Link, ms: u64) -> Result<redis::Value, StoreError> {
        link.call(Function::Lease, &[self.job.as_bytes(), self.holder.as_bytes(), ms.to_string().as_bytes()])
    }
}
