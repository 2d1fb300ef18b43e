//! The border: bytes come in, wait in bounded queues and are durable before they are acknowledged.

pub mod body;
pub mod collect;
mod cross_origin;
#[cfg(test)]
mod fake;
pub mod http;
pub mod journal;
pub mod kafka;
mod receive;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::engine::delta::SourceId;
use crate::engine::messages::Messages;
use crate::time::Millis;

/// Events as they came: lines of JSON, not yet looked at.
#[derive(Clone, Debug)]
pub struct RawBatch {
    /// Newline-delimited JSON, decompressed, followed by `engine::decode::PADDING_BYTES` zero bytes that do not count to `len`.
    pub bytes: Vec<u8>,
    pub len: usize,
    /// The same lines compressed by zstd, if the client sent them so: the journal takes them as they are.
    pub zstd: Option<Bytes>,
    /// Of the newest line.
    pub arrival: Millis,
    pub client: Client,
    /// Where the lines came as many messages: each says itself when it arrived, and from whom.
    pub messages: Option<Messages>,
}

impl RawBatch {
    /// Arrival of the oldest line.
    pub fn oldest(&self) -> Millis {
        self.messages.as_ref().and_then(Messages::arrivals).map_or(self.arrival, |(oldest, _)| oldest)
    }
}

/// What comes next where several sources of a log are read once more.
#[derive(Debug)]
pub enum Step {
    /// Of this source, which goes on at `to` behind it.
    Batch { source: SourceId, to: u64, batch: RawBatch },
    /// The log no longer has what lay before an event that arrived then; `None`: before something that is not there either.
    Lost { first: Option<Millis> },
}

/// Who sent a batch: fills `ip` and `user_agent` where an event brings none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    pub address: Option<IpAddr>,
    pub user_agent: Option<Arc<str>>,
}

/// The batch is durable and was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Late and duplicate events included.
    pub accepted: u64,
    pub rejected: u64,
    /// The first of the rejected, by index among the non-blank lines; at most `ERRORS_LISTED_MAX`.
    pub errors: Vec<(u64, String)>,
}

pub const ERRORS_LISTED_MAX: usize = 10;

/// Why a batch was not taken. Nothing of it was counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("too many events are waiting; try again in {retry_after_s} s")]
    Busy { retry_after_s: u32 },
    #[error("{reason}")]
    Unavailable { reason: String, retry_after_s: u32 },
}

/// Where batches go: the journal and the shard that owns its lane.
pub trait Intake: Send + Sync {
    /// Resolves when the batch is durable and its shard has answered.
    fn submit(&self, batch: RawBatch) -> impl Future<Output = Result<Receipt, Refusal>> + Send;
}
