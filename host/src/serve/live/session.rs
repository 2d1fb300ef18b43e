//! One client's side of the protocol, without its socket: what it subscribed to, what it was sent, what is due next.
//! Holds no frames: a client that reads slowly finds the newest state when it is ready for more.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Notify;

use super::Live;
use super::frame::{self, Body, Frame};
use super::request::{Request, Resume, TopicKey, parse};
use super::topic::{Change, Published, Topic, Version, Wanted};
use crate::web::ApiError;

pub const SUBSCRIPTIONS_MAX: usize = 256;
/// Answers to mistakes that wait to be sent; more are dropped, oldest first.
const ERRORS_MAX: usize = 16;

pub struct Session {
    pub(super) live: Arc<Live>,
    subscriptions: Vec<Subscription>,
    errors: VecDeque<Frame>,
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
    /// Where the client was when it came back; until it was told what it had missed.
    resume: Option<Resume>,
    /// Bodies of the change that is being sent.
    bodies: VecDeque<Body>,
}

/// What to do next.
pub enum Due {
    Send(Frame),
    /// It has to be computed first, off the async threads: `Topic::encode`.
    Encode(Arc<Topic>, Wanted),
}

impl Session {
    pub fn new(live: Arc<Live>) -> Self {
        let definitions = live.definitions_number();
        live.telemetry.serve.live_connections.inc();
        Self { live, subscriptions: Vec::new(), errors: VecDeque::new(), definitions, stale: 0, wake: Arc::default() }
    }

    /// Takes a client's frame. A topic that has to be refreshed first, since it is new or nobody listened to it, is returned.
    pub fn receive(&mut self, text: &str) -> Option<Arc<Topic>> {
        match parse(text) {
            Ok(Request::Unsubscribe { id }) => {
                self.remove(&id);
                None
            }
            Ok(Request::Subscribe { id, topic, resume }) => {
                self.remove(&id);
                self.subscribe(&id, topic, resume).unwrap_or_else(|error| {
                    self.fail(Some(&id), &error);
                    None
                })
            }
            Err(mistake) => {
                self.fail(mistake.id.as_deref(), &mistake.error);
                None
            }
        }
    }

    fn subscribe(&mut self, id: &str, topic: TopicKey, resume: Option<Resume>) -> Result<Option<Arc<Topic>>, ApiError> {
        if self.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            let message = format!("a connection has at most {SUBSCRIPTIONS_MAX} subscriptions");
            return Err(ApiError::bad_request("too_many_subscriptions", message, "Unsubscribe first."));
        }
        let (topic, due) = self.live.topic(topic)?;
        topic.listen(self.wake.clone());
        self.live.telemetry.serve.live_subscriptions.inc();
        let (id, bodies) = (id.to_owned(), VecDeque::new());
        self.subscriptions.push(Subscription { id, topic: topic.clone(), sent: None, resume, bodies });
        Ok(due.then_some(topic))
    }

    pub fn fail(&mut self, id: Option<&str>, error: &ApiError) {
        if self.errors.len() == ERRORS_MAX {
            self.errors.pop_front();
        }
        self.errors.push_back(frame::error(id, error));
    }

    fn remove(&mut self, id: &str) {
        if let Some(at) = self.subscriptions.iter().position(|subscription| subscription.id == id) {
            self.end(at);
        }
    }

    fn end(&mut self, at: usize) -> Subscription {
        let subscription = self.subscriptions.remove(at);
        subscription.topic.leave(&self.wake);
        self.live.telemetry.serve.live_subscriptions.dec();
        subscription
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
                    let subscription = self.end(at);
                    return Some(Due::Send(frame::error(Some(&subscription.id), &error)));
                }
            }
        }
        None
    }

    fn due_of(&mut self, at: usize) -> Step {
        let subscription = &mut self.subscriptions[at];
        if let Some(step) = subscription.next_body() {
            return step;
        }
        let Some(published) = subscription.topic.published() else { return Step::Nothing };
        let version = match &*published {
            Published::Failed(error) => return Step::Failed(error.clone()),
            Published::Version(version) => version,
        };
        if let Some(resume) = subscription.resume {
            let Some(lead) = version.resumed(&resume) else {
                return Step::Due(Due::Encode(subscription.topic.clone(), Wanted::Resumed(resume)));
            };
            subscription.resume = None;
            if let Some(lead) = lead {
                self.live.telemetry.serve.live_resumes.inc();
                subscription.sent = Some(version.number);
                subscription.bodies = lead.iter().cloned().collect();
            }
        } else if let Some(change) = subscription.next_change(version) {
            subscription.sent = subscription.sent.map(|sent| sent + 1);
            subscription.bodies = change.bodies.iter().cloned().collect();
        }
        if let Some(step) = subscription.next_body() {
            return step;
        }
        if subscription.sent == Some(version.number) {
            return Step::Nothing;
        }
        let Some(snapshot) = version.encoded() else {
            return Step::Due(Due::Encode(subscription.topic.clone(), Wanted::Snapshot));
        };
        if subscription.sent.is_some() {
            self.live.telemetry.serve.live_skips.inc();
        }
        subscription.sent = Some(version.number);
        Step::Due(Due::Send(Frame::new(&subscription.id, snapshot)))
    }
}

impl Subscription {
    /// Of the change that is being sent.
    fn next_body(&mut self) -> Option<Step> {
        let body = self.bodies.pop_front()?;
        Some(Step::Due(Due::Send(Frame::new(&self.id, &body))))
    }

    fn next_change<'a>(&self, version: &'a Version) -> Option<&'a Arc<Change>> {
        version.since(self.sent?)?.next()
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
        while !self.subscriptions.is_empty() {
            self.end(self.subscriptions.len() - 1);
        }
    }
}
