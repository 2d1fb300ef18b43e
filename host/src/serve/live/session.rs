//! One client's side of the protocol, without its socket: what it subscribed to, what it was sent, what is due next.
//! Holds no frames: a client that reads slowly finds the newest state when it is ready for more.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;
use tokio::sync::Notify;

use super::Live;
use super::frame::{self, Body};
use super::request::{Request, parse};
use super::topic::{Change, Published, Topic};
use crate::web::ApiError;

pub const SUBSCRIPTIONS_MAX: usize = 256;
/// Answers to mistakes that wait to be sent; more are dropped, oldest first.
const ERRORS_MAX: usize = 16;

pub struct Session {
    pub(super) live: Arc<Live>,
    subscriptions: Vec<Subscription>,
    errors: VecDeque<Utf8Bytes>,
    /// The definitions this client was told of, by their number.
    definitions: u64,
    /// What this client was told about the numbers' age, by its number.
    stale: u64,
    /// Wakes whoever drives this session.
    pub wake: Arc<Notify>,
}

struct Subscription {
    id: String,
    topic: Arc<Topic>,
    /// The version that was sent last.
    sent: Option<u64>,
    /// Bodies of the change that is being sent.
    bodies: VecDeque<Body>,
}

/// What to do next.
pub enum Due {
    Send(Utf8Bytes),
    /// A snapshot has to be encoded first, off the async threads: `Topic::snapshot`.
    Encode(Arc<Topic>),
}

impl Session {
    pub fn new(live: Arc<Live>) -> Self {
        let definitions = live.definitions_number();
        live.telemetry.serve.live_connections.inc();
        Self { live, subscriptions: Vec::new(), errors: VecDeque::new(), definitions, stale: 0, wake: Arc::default() }
    }

    /// Takes a client's frame. A topic that is new to the host is returned: it has to be refreshed once.
    pub fn receive(&mut self, text: &str) -> Option<Arc<Topic>> {
        match parse(text) {
            Ok(Request::Unsubscribe { id }) => {
                self.remove(&id);
                None
            }
            Ok(Request::Subscribe { id, topic }) => {
                self.remove(&id);
                if self.subscriptions.len() >= SUBSCRIPTIONS_MAX {
                    let message = format!("a connection has at most {SUBSCRIPTIONS_MAX} subscriptions");
                    self.fail(
                        Some(&id),
                        &ApiError::bad_request("too_many_subscriptions", message, "Unsubscribe first."),
                    );
                    return None;
                }
                let (topic, new) = match self.live.topic(topic) {
                    Ok(found) => found,
                    Err(error) => {
                        self.fail(Some(&id), &error);
                        return None;
                    }
                };
                topic.wake_when_ready(self.wake.clone());
                self.live.telemetry.serve.live_subscriptions.inc();
                self.subscriptions.push(Subscription { id, topic: topic.clone(), sent: None, bodies: VecDeque::new() });
                new.then_some(topic)
            }
            Err(mistake) => {
                self.fail(mistake.id.as_deref(), &mistake.error);
                None
            }
        }
    }

    pub fn fail(&mut self, id: Option<&str>, error: &ApiError) {
        if self.errors.len() == ERRORS_MAX {
            self.errors.pop_front();
        }
        self.errors.push_back(frame::error(id, error));
    }

    fn remove(&mut self, id: &str) {
        let before = self.subscriptions.len();
        self.subscriptions.retain(|subscription| subscription.id != id);
        self.live.telemetry.serve.live_subscriptions.dec_by((before - self.subscriptions.len()) as i64);
    }

    /// What is due, if anything: errors, then definitions, then subscriptions in their order.
    pub fn due(&mut self) -> Option<Due> {
        if let Some(error) = self.errors.pop_front() {
            return Some(Due::Send(error));
        }
        if let Some((number, told)) = self.live.definitions_after(self.definitions) {
            self.definitions = number;
            return Some(Due::Send(told));
        }
        if let Some((number, told)) = self.live.stale_after(self.stale) {
            self.stale = number;
            return Some(Due::Send(told));
        }
        let mut at = 0;
        while at < self.subscriptions.len() {
            match self.due_of(at) {
                Step::Nothing => at += 1,
                Step::Due(due) => return Some(due),
                Step::Failed(error) => {
                    let subscription = self.subscriptions.remove(at);
                    self.live.telemetry.serve.live_subscriptions.dec();
                    return Some(Due::Send(frame::error(Some(&subscription.id), &error)));
                }
            }
        }
        None
    }

    fn due_of(&mut self, at: usize) -> Step {
        let subscription = &mut self.subscriptions[at];
        if let Some(body) = subscription.bodies.pop_front() {
            return Step::Due(Due::Send(frame::frame(&subscription.id, &body)));
        }
        let Some(published) = subscription.topic.published() else { return Step::Nothing };
        let version = match &*published {
            Published::Failed(error) => return Step::Failed(error.clone()),
            Published::Version(version) => version,
        };
        if subscription.sent == Some(version.number) {
            return Step::Nothing;
        }
        let next: Option<&Arc<Change>> = subscription.sent.and_then(|sent| version.since(sent)?.next());
        if let (Some(sent), Some(change)) = (subscription.sent, next) {
            subscription.sent = Some(sent + 1);
            subscription.bodies = change.bodies.iter().cloned().collect();
            return self.due_of(at);
        }
        let Some(snapshot) = version.encoded() else {
            return Step::Due(Due::Encode(subscription.topic.clone()));
        };
        if subscription.sent.is_some() {
            self.live.telemetry.serve.live_skips.inc();
        }
        subscription.sent = Some(version.number);
        Step::Due(Due::Send(frame::frame(&subscription.id, snapshot)))
    }
}

enum Step {
    Nothing,
    Due(Due),
    Failed(ApiError),
}

impl Drop for Session {
    fn drop(&mut self) {
        self.live.telemetry.serve.live_connections.dec();
        self.live.telemetry.serve.live_subscriptions.dec_by(self.subscriptions.len() as i64);
    }
}
