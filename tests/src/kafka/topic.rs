//! A topic as programs that are not Tidemark see it: written with a client library, within transactions too, and read whole.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

const WITHIN: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Default)]
pub struct Put<'a> {
    pub value: Option<&'a [u8]>,
    pub key: Option<&'a str>,
    pub headers: &'a [(&'a str, &'a str)],
    pub timestamp: Option<i64>,
    pub partition: Option<i32>,
}

/// A message that holds these lines.
pub fn put(value: &str) -> Put<'_> {
    Put { value: Some(value.as_bytes()), ..Put::default() }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub value: String,
    pub headers: Vec<(String, String)>,
}

pub struct Writer {
    producer: BaseProducer,
    topic: String,
}

impl Writer {
    pub fn new(brokers: &str, topic: &str) -> Result<Self> {
        Self::with(brokers, topic, &[])
    }

    /// What it writes counts when it is committed.
    pub fn in_transactions(brokers: &str, topic: &str) -> Result<Self> {
        let writer = Self::with(brokers, topic, &[("transactional.id", topic)])?;
        writer.producer.init_transactions(WITHIN)?;
        Ok(writer)
    }

    fn with(brokers: &str, topic: &str, more: &[(&str, &str)]) -> Result<Self> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("linger.ms", "5").set("queue.buffering.max.messages", "0");
        for (key, value) in more {
            config.set(*key, *value);
        }
        Ok(Self { producer: config.create()?, topic: topic.to_owned() })
    }

    pub fn put(&self, message: Put<'_>) -> Result<()> {
        let headers = message
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }));
        let mut record: BaseRecord<'_, str, [u8]> = BaseRecord::to(&self.topic).headers(headers);
        (record.key, record.payload) = (message.key, message.value);
        (record.timestamp, record.partition) = (message.timestamp, message.partition);
        self.producer.send(record).map_err(|(error, _)| error)?;
        self.producer.poll(Duration::ZERO);
        Ok(())
    }

    pub fn flush(&self) -> Result<()> {
        Ok(self.producer.flush(WITHIN)?)
    }

    /// Writes within a transaction, and commits or aborts it.
    pub fn transaction(&self, messages: &[Put<'_>], commit: bool) -> Result<()> {
        self.producer.begin_transaction()?;
        messages.iter().try_for_each(|message| self.put(*message))?;
        if commit {
            return Ok(self.producer.commit_transaction(WITHIN)?);
        }
        self.flush()?;
        Ok(self.producer.abort_transaction(WITHIN)?)
    }
}

/// All that is in a topic now, partition after partition.
pub fn read(brokers: &str, topic: &str) -> Result<Vec<Found>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("enable.partition.eof", "true").set("group.id", "reader");
    config.set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create()?;
    let metadata = consumer.fetch_metadata(Some(topic), WITHIN)?;
    let mut left = metadata.topics().first().context("the topic")?.partitions().len();
    let mut all = TopicPartitionList::new();
    for partition in 0..left {
        all.add_partition_offset(topic, partition as i32, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    let (mut found, started) = (Vec::new(), Instant::now());
    while left > 0 {
        ensure!(started.elapsed() < WITHIN, "{topic} is not read to its end");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                found.push(Found {
                    value: text(message.payload().unwrap_or_default()),
                    headers: headers.map(|it| (it.key.to_owned(), text(it.value.unwrap_or_default()))).collect(),
                });
            }
            Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
            Some(Err(error)) => bail!("{topic}: {error}"),
            None => {}
        }
    }
    Ok(found)
}

fn admin(brokers: &str) -> Result<AdminClient<DefaultClientContext>> {
    Ok(ClientConfig::new().set("bootstrap.servers", brokers).create()?)
}

pub fn create(brokers: &str, topic: &str, partitions: i32) -> Result<()> {
    let options = AdminOptions::new().operation_timeout(Some(WITHIN));
    let new = [NewTopic::new(topic, partitions, TopicReplication::Fixed(1))];
    let admin = admin(brokers)?;
    let created = admin.create_topics(&new, &options);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for outcome in runtime.block_on(created)? {
        outcome.map_err(|(topic, code)| anyhow::anyhow!("{topic}: {code}"))?;
    }
    Ok(())
}

/// Where each partition ends now.
pub fn ends(brokers: &str, topic: &str, partitions: i32) -> Result<Vec<u64>> {
    let admin = admin(brokers)?;
    let end = |partition| Ok(admin.inner().fetch_watermarks(topic, partition, WITHIN)?.1 as u64);
    (0..partitions).map(end).collect()
}

pub fn delete(brokers: &str, topic: &str) -> Result<()> {
    let admin = admin(brokers)?;
    let options = AdminOptions::new().operation_timeout(Some(WITHIN));
    let deleted = admin.delete_topics(&[topic], &options);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for outcome in runtime.block_on(deleted)? {
        outcome.map_err(|(topic, code)| anyhow::anyhow!("{topic}: {code}"))?;
    }
    Ok(())
}

/// All that is in a topic now is gone, as after its retention.
pub fn delete_records(brokers: &str, topic: &str) -> Result<()> {
    let admin = admin(brokers)?;
    let metadata = admin.inner().fetch_metadata(Some(topic), WITHIN)?;
    let mut all = TopicPartitionList::new();
    for partition in metadata.topics().first().context("the topic")?.partitions() {
        all.add_partition_offset(topic, partition.id(), Offset::End)?;
    }
    let options = AdminOptions::new().operation_timeout(Some(WITHIN));
    let deleted = admin.delete_records(&all, &options);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(deleted)?.elements().iter().try_for_each(|element| Ok(element.error()?))
}
