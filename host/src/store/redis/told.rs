//! What was told of anomalies, for the one host that tells: kept where the lease is, so that who has lost it writes nothing.

use redis::Value;

use super::link::{Function, unexpected};
use super::{Lease, RedisStore};
use crate::store::StoreError;

const KEY: &str = "told";

impl RedisStore {
    /// As it was last kept.
    pub fn told(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let mut writer = self.lock_writer();
        let name = writer.link.key(&[KEY]);
        match writer.link.query(redis::cmd("GET").arg(name))? {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => Ok(Some(bytes)),
            other => Err(unexpected(&other)),
        }
    }

    /// False: another host holds the lease, and nothing was written.
    pub fn keep_told(&self, lease: &Lease, told: &[u8]) -> Result<bool, StoreError> {
        let arguments = [lease.job().as_bytes(), lease.holder().as_bytes(), KEY.as_bytes(), told];
        match self.lock_writer().link.call(Function::Keep, &arguments)? {
            Value::Int(kept) => Ok(kept == 1),
            other => Err(unexpected(&other)),
        }
    }
}
