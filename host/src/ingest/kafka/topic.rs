//! The topic at the start: is it there, how many partitions has it, which cluster is it of. Creates it where it may be created.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError as Failure, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};

use super::{KafkaError, KafkaSettings};

/// Of a topic that is created here.
const PARTITIONS: i32 = 12;
/// As many copies as the cluster makes by default.
const REPLICATION_DEFAULT: i32 = -1;
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Services of an installation start side by side: Kafka may be later than we are.
const REACH_WITHIN: Duration = Duration::from_secs(60);
const REACH_TRY: Duration = Duration::from_secs(5);
/// What the client says when waiting will not help: a wrong password, a certificate that nobody we know has signed.
const FOR_GOOD: [&str; 2] = ["authentication error", "certificate verify failed"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub partitions: usize,
    /// Empty where the cluster does not say.
    pub cluster: String,
    /// Letters can be kept.
    pub dead_topic: bool,
}

#[derive(Default)]
struct Quiet {
    /// Why the last connection failed; the answer to a question says only that there was none in time.
    failure: Mutex<String>,
}

impl Quiet {
    fn failure(&self) -> String {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "FAIL" {
            message.clone_into(&mut self.failure.lock().unwrap_or_else(PoisonError::into_inner));
        }
        super::log(level, facility, message);
    }

    fn error(&self, error: Failure, reason: &str) {
        tracing::debug!(target: "tidemark::kafka", %error, "{reason}");
    }
}

/// A producer that produces nothing: the one client that hands over what it has to say when it is asked.
impl ProducerContext for Quiet {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// Waits for Kafka, then finds or creates the topic and the one for dead letters. Not to be called from async code.
pub fn prepare(settings: &KafkaSettings) -> Result<Found, KafkaError> {
    let admin: AdminClient<Quiet> = settings
        .client(&[])
        .create_with_context(Quiet::default())
        .map_err(|error| KafkaError::Setting(error.to_string()))?;
    let cluster = reach(settings)?;
    let partitions = match partitions(&admin, &settings.topic)? {
        Some(partitions) => partitions,
        None => {
            create(&admin, &settings.topic, PARTITIONS)?;
            tracing::info!(topic = settings.topic, partitions = PARTITIONS, "the topic was created");
            PARTITIONS as usize
        }
    };
    let dead = settings.dead_topic();
    let dead_topic = match partitions_of_dead(&admin, &dead) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "dead letters are only counted, and the newest shown");
            false
        }
    };
    Ok(Found { partitions, cluster, dead_topic })
}

fn reach(settings: &KafkaSettings) -> Result<String, KafkaError> {
    let asking: BaseProducer<Quiet> = settings
        .client(&[])
        .create_with_context(Quiet::default())
        .map_err(|error| KafkaError::Setting(error.to_string()))?;
    let started = Instant::now();
    loop {
        let error = match asking.client().fetch_metadata(Some(&settings.topic), REACH_TRY) {
            Ok(_) => return Ok(asking.client().fetch_cluster_id(ASK_TIMEOUT).unwrap_or_default()),
            Err(error) => error,
        };
        asking.poll(Duration::ZERO);
        let failure = asking.context().failure();
        let reason = if failure.is_empty() { error.to_string() } else { failure };
        if started.elapsed() > REACH_WITHIN || FOR_GOOD.iter().any(|words| reason.contains(words)) {
            return Err(KafkaError::Unreachable { brokers: settings.brokers.clone(), reason });
        }
        tracing::warn!(brokers = settings.brokers, reason, "waiting for Kafka");
    }
}

/// `None`: there is no such topic.
fn partitions(admin: &AdminClient<Quiet>, topic: &str) -> Result<Option<usize>, KafkaError> {
    let failed = |reason: String| KafkaError::Topic { topic: topic.to_owned(), reason };
    let metadata = admin.inner().fetch_metadata(Some(topic), ASK_TIMEOUT).map_err(|error| failed(error.to_string()))?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
    match found.error().map(RDKafkaErrorCode::from) {
        None if found.partitions().is_empty() => Ok(None),
        None => Ok(Some(found.partitions().len())),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(None),
        Some(code) => Err(failed(code.to_string())),
    }
}

fn partitions_of_dead(admin: &AdminClient<Quiet>, topic: &str) -> Result<(), KafkaError> {
    match partitions(admin, topic)? {
        Some(_) => Ok(()),
        None => create(admin, topic, 1),
    }
}

fn create(admin: &AdminClient<Quiet>, topic: &str, partitions: i32) -> Result<(), KafkaError> {
    let failed = |reason: String| KafkaError::Topic { topic: topic.to_owned(), reason };
    let new = [NewTopic::new(topic, partitions, TopicReplication::Fixed(REPLICATION_DEFAULT))];
    let options = AdminOptions::new().operation_timeout(Some(ASK_TIMEOUT)).request_timeout(Some(ASK_TIMEOUT));
    let created = wait(admin.create_topics(&new, &options)).map_err(|error| failed(error.to_string()))?;
    for outcome in created {
        match outcome {
            // Another host was first.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(failed(code.to_string())),
        }
    }
    Ok(())
}

/// The answer is made on a thread of the client: any executor will do.
fn wait<T>(answer: impl Future<Output = KafkaResult<T>>) -> KafkaResult<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::ClientCreation(error.to_string()))?.block_on(answer)
}
