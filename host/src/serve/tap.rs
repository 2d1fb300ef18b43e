//! `GET /v1/tap`: some of the events that are counted just now, with what enrichments made of them, to whoever holds a condition
//! against them. Costs nothing while nobody does. Does not know who picks the events.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::query::request::{decode, parameters};
use super::{Host, Services};
use crate::catalog::definitions::Active;
use crate::catalog::diagnostic::Diagnostic;
use crate::engine::decode::Kind;
use crate::engine::dictionary::Entry;
use crate::engine::judge::Arrival;
use crate::engine::plan::Plan;
use crate::engine::shard::{Input, Looked, Shard};
use crate::time::Millis;
use crate::web::ApiError;

const TAPS_MAX: usize = 8;
/// Lines that wait for a reader; further ones are skipped.
const LINES_WAITING_MAX: usize = 256;
/// Lines for one reader: at once, and in each of the periods that `refill` begins.
const BURST_LINES_MAX: u32 = 100;
const PERIOD_LINES_MAX: u32 = 10;
/// How often a reader is told how much of all it sees.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// Larger events are not looked at.
pub const EVENT_BYTES_MAX: usize = 64 << 10;

/// An event as it came.
pub struct Seen {
    /// `engine::decode::PADDING_BYTES` zeros follow `len`.
    pub bytes: Vec<u8>,
    pub len: usize,
    pub arrival: Millis,
    pub address: Option<String>,
    pub user_agent: Option<Arc<str>>,
}

#[derive(Default)]
pub struct Taps {
    list: Mutex<Vec<Tap>>,
    open: AtomicUsize,
    closed: AtomicBool,
}

struct Tap {
    condition: Option<String>,
    /// What its plan was made from.
    active: Arc<Active>,
    shard: Shard,
    lines: mpsc::Sender<Bytes>,
    counts: Arc<Counts>,
    room: u32,
}

#[derive(Default)]
struct Counts {
    looked_at: AtomicU64,
    passed: AtomicU64,
    /// Passed, and not sent: the reader is slow, or there are too many.
    skipped: AtomicU64,
}

struct Opened {
    lines: mpsc::Receiver<Bytes>,
    counts: Arc<Counts>,
}

impl Taps {
    pub fn count(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Every reader's stream ends.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
        self.list().clear();
        self.open.store(0, Relaxed);
    }

    /// Another period: readers have room again, and who has gone is let go.
    pub fn refill(&self) {
        let mut list = self.list();
        list.retain(|tap| !tap.lines.is_closed());
        list.iter_mut().for_each(|tap| tap.room = BURST_LINES_MAX.min(tap.room + PERIOD_LINES_MAX));
        self.open.store(list.len(), Relaxed);
    }

    /// Shows an event to every tap.
    pub fn see(&self, event: &Seen, active: &Arc<Active>, host: &dyn Host) {
        self.list().retain_mut(|tap| tap.adopt(active, host) && tap.see(event));
    }

    fn open(&self, active: Arc<Active>, condition: Option<String>, host: &dyn Host) -> Result<Opened, ApiError> {
        let plan = host.look(&active.definitions, condition.as_deref()).map_err(|found| refused(&found))?;
        let (lines, reader) = mpsc::channel(LINES_WAITING_MAX);
        let counts = Arc::new(Counts::default());
        let mut list = self.list();
        if self.closed.load(Relaxed) {
            return Err(ApiError::unavailable("the host is stopping", 5));
        }
        list.retain(|tap| !tap.lines.is_closed());
        if list.len() >= TAPS_MAX {
            return Err(ApiError::unavailable(format!("{TAPS_MAX} taps are open already"), 10));
        }
        let shard = shard(plan);
        list.push(Tap { condition, active, shard, lines, counts: counts.clone(), room: BURST_LINES_MAX });
        self.open.store(list.len(), Relaxed);
        Ok(Opened { lines: reader, counts })
    }

    fn list(&self) -> MutexGuard<'_, Vec<Tap>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shard(plan: Plan) -> Shard {
    Shard::new(0, Arc::new(plan), EVENT_BYTES_MAX, 0)
}

impl Tap {
    /// Looks at events as the definitions in force say. False: it cannot any more, and has said so.
    fn adopt(&mut self, active: &Arc<Active>, host: &dyn Host) -> bool {
        if Arc::ptr_eq(&self.active.definitions, &active.definitions) {
            return true;
        }
        match host.look(&active.definitions, self.condition.as_deref()) {
            Ok(plan) => {
                self.shard = shard(plan);
                self.active = active.clone();
                true
            }
            Err(found) => {
                let ApiError { code, message, help, .. } = refused(&found);
                let _ = self.lines.try_send(line(&json!({"error": {"code": code, "message": message, "help": help}})));
                false
            }
        }
    }

    /// False: its reader has gone.
    fn see(&mut self, event: &Seen) -> bool {
        self.counts.looked_at.fetch_add(1, Relaxed);
        let input = Input {
            buffer: &event.bytes,
            len: event.len,
            arrival: Arrival::At(event.arrival),
            order: 0,
            address: event.address.as_deref(),
            user_agent: event.user_agent.as_deref(),
        };
        let plan = self.shard.plan().clone();
        let mut told = None;
        self.shard.look(&input, &mut |looked| {
            told = Some(tell(event.arrival, &event.bytes[looked.bytes.clone()], &filled(looked, &plan)));
        });
        let Some(told) = told else { return true };
        self.counts.passed.fetch_add(1, Relaxed);
        let sent = match self.room.checked_sub(1) {
            Some(room) => {
                self.room = room;
                self.lines.try_send(told)
            }
            None => Err(TrySendError::Full(told)),
        };
        if let Err(TrySendError::Full(_)) = sent {
            self.counts.skipped.fetch_add(1, Relaxed);
        }
        !matches!(sent, Err(TrySendError::Closed(_)))
    }
}

/// The event's own bytes; as text where they are no JSON, which nobody has to notice where no definition reads.
fn tell(arrival: Millis, event: &[u8], filled: &Map<String, Value>) -> Bytes {
    let filled = serde_json::to_string(filled).unwrap_or_default();
    let text = String::from_utf8_lossy(event);
    let sound = serde_json::from_str::<IgnoredAny>(&text).is_ok();
    let event = if sound { text.trim().to_owned() } else { Value::from(&*text).to_string() };
    Bytes::from(format!("{{\"arrival\":{arrival},\"event\":{event},\"filled\":{filled}}}\n"))
}

/// What an event did not bring itself, by path.
pub fn filled(looked: &Looked<'_>, plan: &Plan) -> Map<String, Value> {
    looked.filled().map(|(field, entry)| (plan.fields[field].path.join("."), value(entry))).collect()
}

fn value(entry: &Entry) -> Value {
    match entry.kind {
        Kind::True => Value::Bool(true),
        Kind::False => Value::Bool(false),
        Kind::Number => serde_json::from_str(&entry.text).unwrap_or_else(|_| (*entry.text).into()),
        _ => (*entry.text).into(),
    }
}

fn line(value: &Value) -> Bytes {
    Bytes::from(format!("{value}\n"))
}

fn refused(found: &[Diagnostic]) -> ApiError {
    let Some(first) = found.first() else {
        return ApiError::new(StatusCode::NOT_FOUND, "no_events", "this host sees no events", "Ask one that counts.");
    };
    let Diagnostic { message, column, expected, help, .. } = first;
    let expected = expected.as_ref().map_or_else(String::new, |expected| format!("Expected: {expected}."));
    let help = help.as_ref().map_or_else(String::new, |help| format!(" {help}."));
    let message = format!("{message}, at character {column} of `where`");
    ApiError::bad_request("invalid_condition", message, format!("{expected}{help}"))
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.services.telemetry.serve.taps.dec();
    }
}

/// What one reader is given, line by line.
struct Reading {
    lines: mpsc::Receiver<Bytes>,
    counts: Arc<Counts>,
    every: Interval,
    services: Arc<Services>,
    events_before: u64,
}

impl Reading {
    async fn next(&mut self) -> Option<Bytes> {
        tokio::select! {
            biased;
            _ = self.every.tick() => {}
            line = self.lines.recv() => return line,
        }
        let events = self.services.host.status().events_total.saturating_sub(self.events_before);
        let Counts { looked_at, passed, skipped } = &*self.counts;
        let [looked_at, passed, skipped] = [looked_at, passed, skipped].map(|count| count.load(Relaxed));
        Some(line(&json!({
            "sampled": {"events": events, "looked_at": looked_at, "passed": passed, "skipped": skipped}
        })))
    }
}

pub async fn open(State(services): State<Arc<Services>>, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    let condition = condition(query.as_deref().unwrap_or(""))?;
    let (asked, active) = (services.clone(), services.active.load_full());
    let opening = tokio::task::spawn_blocking(move || asked.taps.open(active, condition, &*asked.host));
    let Opened { lines, counts } = opening.await.map_err(|_| ApiError::internal("opening a tap failed"))??;
    let mut every = interval(TOLD_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let events_before = services.host.status().events_total;
    services.telemetry.serve.taps.inc();
    let reading = Reading { lines, counts, every, services, events_before };
    let stream = futures_util::stream::unfold(reading, |mut reading| async {
        let line = reading.next().await?;
        Some((Ok::<_, Infallible>(line), reading))
    });
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(stream)).into_response())
}

/// `where`, and nothing else: a misspelt one would let all events pass.
fn condition(query: &str) -> Result<Option<String>, ApiError> {
    let mut condition = None;
    for (name, value) in parameters(query) {
        if name != "where" {
            let message = format!("there is no parameter `{name}`");
            return Err(ApiError::bad_request("unknown_parameter", message, "The one there is: `where=CONDITION`."));
        }
        condition = Some(decode(value));
    }
    Ok(condition)
}
