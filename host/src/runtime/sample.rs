//! Picks a few of the events that are counted, for those who look at single ones: what fields there are, taps. A shard looks once
//! a batch whether more are wanted; all else happens on a thread of its own. Does not know what events mean.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use memchr::{memchr, memrchr};

use crate::engine::decode::PADDING_BYTES;
use crate::engine::report::Report;
use crate::ingest::RawBatch;
use crate::serve::Services;
use crate::serve::tap::{EVENT_BYTES_MAX, Seen};

/// How often shards may pick again.
const PERIOD: Duration = Duration::from_millis(100);
/// Events picked in a period: for the fields alone, and where somebody taps.
const EVENTS_MAX: usize = 2;
const EVENTS_TAPPED_MAX: usize = 500;
/// Of one batch.
const EVENTS_OF_BATCH_MAX: usize = 64;
/// A batch of which more was not counted is passed over: it would have to be searched.
const UNCOUNTED_MAX: usize = 4_096;
/// A batch of fewer bytes for each event that is wanted is taken from its beginning.
const SPREAD_BYTES_MIN: usize = 4_096;
/// Events that wait to be looked at; further ones are not picked.
const EVENTS_WAITING_MAX: usize = 1_024;

pub struct Sampler {
    /// Events that may still be picked in this period.
    wanted: AtomicUsize,
    events: Sender<Seen>,
}

impl Sampler {
    pub fn new() -> (Arc<Self>, Receiver<Seen>) {
        let (events, picked) = bounded(EVENTS_WAITING_MAX);
        (Arc::new(Self { wanted: AtomicUsize::new(EVENTS_MAX), events }), picked)
    }

    /// A batch that was counted. Called by shards.
    #[inline]
    pub fn offer(&self, batch: &RawBatch, report: &Report) {
        let wanted = self.wanted.load(Relaxed);
        if wanted > 0 && report.counted > 0 && report.uncounted.len() <= UNCOUNTED_MAX {
            self.pick(wanted.min(EVENTS_OF_BATCH_MAX), batch, report);
        }
    }

    #[cold]
    fn pick(&self, wanted: usize, batch: &RawBatch, report: &Report) {
        let mut sent = 0;
        for (start, end) in spread(&batch.bytes[..batch.len], wanted, batch.arrival as usize) {
            if end - start <= EVENT_BYTES_MAX && !report.uncounted.contains(&(start as u32)) {
                sent += usize::from(self.events.try_send(seen(batch, start, end)).is_ok());
            }
        }
        // Shards that pick at the same time may pick a few too many.
        let _ = self.wanted.fetch_update(Relaxed, Relaxed, |left| Some(left.saturating_sub(sent)));
    }
}

/// Lines that are not blank, at most `wanted`, spread over the whole; the first of them by `chance`. Lines begin where the decoder
/// says: behind blanks.
fn spread(lines: &[u8], wanted: usize, chance: usize) -> Vec<(usize, usize)> {
    let stride = lines.len().div_ceil(wanted.max(1)).max(1);
    let mut found: Vec<(usize, usize)> = Vec::new();
    let first = if stride > SPREAD_BYTES_MIN { chance % stride } else { 0 };
    let mut at = memrchr(b'\n', &lines[..first]).map_or(0, |newline| newline + 1);
    while at < lines.len() && found.len() < wanted {
        let end = memchr(b'\n', &lines[at..]).map_or(lines.len(), |length| at + length);
        let line = lines[at..end].trim_ascii();
        if !line.is_empty() {
            let start = end - lines[at..end].trim_ascii_start().len();
            found.push((start, start + line.len()));
        }
        let next = (first + found.len() * stride).max(end + 1).min(lines.len());
        at = memrchr(b'\n', &lines[..next]).map_or(0, |newline| newline + 1).max(end + 1);
    }
    found
}

fn seen(batch: &RawBatch, start: usize, end: usize) -> Seen {
    let mut bytes = Vec::with_capacity(end - start + PADDING_BYTES);
    bytes.extend_from_slice(&batch.bytes[start..end]);
    bytes.resize(end - start + PADDING_BYTES, 0);
    let len = end - start;
    let message = batch.messages.as_ref().map(|messages| (messages, messages.at(start as u32)));
    match message {
        Some((messages, message)) => Seen {
            bytes,
            len,
            arrival: messages.get(message).arrival,
            address: messages.address(message).map(str::to_owned),
            user_agent: messages.user_agent(message).map(Arc::from),
        },
        None => Seen {
            bytes,
            len,
            arrival: batch.arrival,
            address: batch.client.address.map(|address| address.to_string()),
            user_agent: batch.client.user_agent.clone(),
        },
    }
}

/// Looks at what was picked, until nobody picks or asks any more.
pub fn start(picked: Receiver<Seen>, sampler: Arc<Sampler>, services: &Arc<Services>) {
    let (sampler, services) = (Arc::downgrade(&sampler), Arc::downgrade(services));
    let thread = std::thread::Builder::new().name("sample".into());
    drop(thread.spawn(move || look(&picked, &sampler, &services)).expect("the system starts threads"));
}

fn look(picked: &Receiver<Seen>, sampler: &Weak<Sampler>, services: &Weak<Services>) {
    let (mut began, mut noted) = (Instant::now(), 0);
    loop {
        let event = picked.recv_timeout(PERIOD.saturating_sub(began.elapsed()));
        let Some(services) = services.upgrade() else { return };
        match event {
            Ok(event) => {
                if noted < EVENTS_MAX {
                    noted += 1;
                    services.fields.note(event.arrival, &event.bytes[..event.len]);
                }
                if services.taps.count() > 0 {
                    services.see(&event);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if began.elapsed() >= PERIOD {
            let Some(sampler) = sampler.upgrade() else { return };
            (began, noted) = (Instant::now(), 0);
            services.taps.refill();
            let wanted = if services.taps.count() > 0 { EVENTS_TAPPED_MAX } else { EVENTS_MAX };
            sampler.wanted.store(wanted, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &str, wanted: usize, chance: usize) -> Vec<&str> {
        spread(lines.as_bytes(), wanted, chance).into_iter().map(|(start, end)| &lines[start..end]).collect()
    }

    #[test]
    fn small_batches_are_picked_whole_and_large_ones_all_over() {
        assert_eq!(texts("{1}\n\n {2} \r\n{3}", 64, 99), ["{1}", "{2}", "{3}"]);
        assert_eq!(texts("{1}\n{2}\n{3}\n{4}\n", 2, 99), ["{1}", "{3}"]);
        assert_eq!(texts("\n \n", 5, 1), [""; 0]);
        assert_eq!(texts("", 5, 1), [""; 0]);
        let large: String = (0..10_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
        for chance in [0, 1, 12_345, usize::MAX] {
            let few = texts(&large, 4, chance);
            let numbers: Vec<usize> = few.iter().map(|line| line[5..line.len() - 1].parse().unwrap()).collect();
            assert_eq!(numbers.len(), 4, "{chance}: {numbers:?}");
            assert!(numbers.windows(2).all(|pair| pair[1] - pair[0] > 2_000), "{chance}: {numbers:?}");
        }
        assert_ne!(texts(&large, 1, 0), texts(&large, 1, 40_000), "not always the first");
        let one = "x".repeat(100_000);
        assert_eq!(texts(&one, 3, 7), [one.as_str()]);
    }
}
