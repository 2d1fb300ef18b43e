//! The consumer's side of the group: what Kafka tells it while it is polled, kept until its loop comes to it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError as Failure, KafkaResult};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};

/// A partition's leader that was silent for longer may know of messages that we do not.
const LEADER_SILENT_MAX_US: i64 = 1_500_000;
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// What happened while the consumer was polled.
#[derive(Debug)]
pub enum Event {
    Assigned(Vec<i32>),
    Revoked(Vec<i32>),
    Progress(Progress),
}

/// What the client knows of the partitions it reads.
#[derive(Debug, Default)]
pub struct Progress {
    /// Some broker answers.
    pub reachable: bool,
    /// End of each partition that is being read from a leader that answers.
    pub ends: HashMap<i32, u64>,
}

pub struct Group {
    topic: String,
    events: Mutex<Vec<Event>>,
    pending: AtomicBool,
    /// What the loop was asked last and has not answered yet. The client goes on with nothing before it is, not even with its end.
    unanswered: Mutex<Option<(Ask, TopicPartitionList)>>,
    /// The loop has ended: what is asked is answered at once.
    leaving: AtomicBool,
}

#[derive(Clone, Copy, PartialEq)]
enum Ask {
    ToTake,
    ToLetGo,
}

impl Group {
    pub fn new(topic: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            events: Mutex::default(),
            pending: AtomicBool::new(false),
            unanswered: Mutex::default(),
            leaving: AtomicBool::new(false),
        }
    }

    fn push(&self, event: Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        self.pending.store(true, Relaxed);
    }

    /// What happened since the last call, in its order.
    pub fn take(&self) -> Vec<Event> {
        if !self.pending.load(Relaxed) {
            return Vec::new();
        }
        self.pending.store(false, Relaxed);
        std::mem::take(&mut self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Group {
    fn unanswered(&self) -> MutexGuard<'_, Option<(Ask, TopicPartitionList)>> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop has done what it was asked.
    pub fn answered(&self) {
        *self.unanswered() = None;
    }

    /// The loop has ended, maybe with something asked that it did not come to, or could not do.
    pub fn leave(&self, consumer: &BaseConsumer<Self>) {
        self.leaving.store(true, Relaxed);
        if let Some((ask, partitions)) = self.unanswered().take() {
            answer(consumer, ask, &partitions);
        }
    }
}

/// As the loop would have. Nobody reads any more: what is taken now goes with the client's end, what cannot be let go with the
/// end of the session.
fn answer(consumer: &BaseConsumer<Group>, ask: Ask, partitions: &TopicPartitionList) {
    let _ = match ask {
        Ask::ToTake => consumer.incremental_assign(partitions),
        Ask::ToLetGo => consumer.incremental_unassign(partitions),
    };
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log(level, facility, message);
    }

    fn error(&self, error: Failure, reason: &str) {
        tracing::debug!(target: "tidemark::kafka", %error, "{reason}");
    }

    fn stats(&self, statistics: Statistics) {
        self.push(Event::Progress(progress(&self.topic, &statistics)));
    }
}

impl ConsumerContext for Group {
    /// Only notes what is asked: partitions are taken and let go by the loop, which knows what it has of them.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let ask = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Ask::ToTake,
            _ => Ask::ToLetGo,
        };
        if self.leaving.load(Relaxed) {
            return answer(consumer, ask, partitions);
        }
        let numbers = partitions.elements().iter().map(|element| element.partition()).collect();
        *self.unanswered() = Some((ask, partitions.clone()));
        self.push(match ask {
            Ask::ToTake => Event::Assigned(numbers),
            Ask::ToLetGo => Event::Revoked(numbers),
        });
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(target: "tidemark::kafka", %error, "the group was not told of our positions");
        }
    }
}

fn progress(topic: &str, statistics: &Statistics) -> Progress {
    let brokers = || statistics.brokers.values().filter(|broker| broker.nodeid >= 0 && broker.state == "UP");
    let answers = |id: i32| brokers().any(|broker| broker.nodeid == id && broker.rxidle < LEADER_SILENT_MAX_US);
    let partitions = statistics.topics.get(topic).into_iter().flat_map(|topic| &topic.partitions);
    let read = partitions.filter(|(_, it)| it.fetch_state == "active" && it.ls_offset >= 0 && answers(it.leader));
    Progress {
        reachable: brokers().next().is_some(),
        ends: read.map(|(number, it)| (*number, it.ls_offset as u64)).collect(),
    }
}

/// Others in the group, by their names; `None` if the cluster does not say.
pub fn others(consumer: &BaseConsumer<Group>, group: &str, own: &str) -> Option<Vec<String>> {
    let groups = consumer.fetch_group_list(Some(group), ASK_TIMEOUT);
    let groups = groups.inspect_err(|error| tracing::debug!(%error, "the group's members are not known")).ok()?;
    let members = groups.groups().iter().filter(|found| found.name() == group).flat_map(|found| found.members());
    let others = members.filter(|member| member.client_id() != own);
    Some(others.map(|member| format!("{} at {}", member.client_id(), member.client_host())).collect())
}
