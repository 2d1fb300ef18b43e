//! Hearing of changes that other hosts made. A message only says "look now": one that is lost delays until the next tick.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redis::RedisError;

use super::Settings;
use crate::store::{Seq, StoreError};

/// How soon it is noticed that nobody wants to hear any more.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Between two tries to connect.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Ends when it is dropped.
pub struct Subscription {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Calls `heard` with the change number of each message, from a thread of its own; after each new connection too, with 0, since
/// messages may have been missed before it.
pub fn subscribe(
    settings: Settings,
    channel: String,
    heard: impl Fn(Seq) + Send + 'static,
) -> Result<Subscription, StoreError> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let listen = move || {
        while !stopped.load(Relaxed) {
            let began = Instant::now();
            if let Err(error) = hear(&settings, &channel, &heard, &stopped) {
                tracing::debug!(%error, "changes are not heard of");
            }
            while !stopped.load(Relaxed) && began.elapsed() < AGAIN_AFTER {
                std::thread::park_timeout(LOOK_EVERY);
            }
        }
    };
    let thread = std::thread::Builder::new().name("redis-changes".into()).spawn(listen)?;
    Ok(Subscription { stop, thread: Some(thread) })
}

fn hear(settings: &Settings, channel: &str, heard: &impl Fn(Seq), stopped: &AtomicBool) -> Result<(), RedisError> {
    let client = redis::Client::open(settings.url.as_str())?;
    let deadline = Duration::from_millis(settings.deadline_ms);
    let mut connection = client.get_connection_with_timeout(deadline)?;
    connection.set_write_timeout(Some(deadline))?;
    connection.set_read_timeout(Some(deadline))?;
    let mut messages = connection.as_pubsub();
    messages.subscribe(channel)?;
    messages.set_read_timeout(Some(LOOK_EVERY))?;
    heard(0);
    while !stopped.load(Relaxed) {
        match messages.get_message() {
            Ok(message) => heard(seq_of(message.get_payload_bytes())),
            Err(error) if error.is_timeout() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn seq_of(message: &[u8]) -> Seq {
    let message: serde_json::Value = serde_json::from_slice(message).unwrap_or_default();
    message["seq"].as_u64().unwrap_or(0)
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // One that failed has said so.
            let _ = thread.join();
        }
    }
}
