//! Messages that were read before, once more: for those who want the events themselves when they are counted. A client of its own,
//! which is no member of the group and takes nothing from those who count.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _, DefaultConsumerContext};
use rdkafka::error::KafkaError as Failure;
use rdkafka::topic_partition_list::Offset;

use super::message::lines;
use super::{KafkaError, KafkaSettings};
use crate::engine::decode::PADDING_BYTES;
use crate::engine::delta::SourceId;
use crate::engine::messages::Messages;
use crate::ingest::{Client, RawBatch};
use crate::time::{Clock, Millis};

const ASK_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
/// No message for so long although there are more: tried again later.
const MESSAGE_WITHIN: Duration = Duration::from_secs(10);
/// What the client reads ahead.
const AHEAD_KBYTES: &str = "4096";
/// A question to a broker waits so long at the end of a partition, and another partition waits for it.
const TURN_WAIT_MS: &str = "20";

pub struct Reread {
    consumer: BaseConsumer<DefaultConsumerContext>,
    topic: String,
    clock: Clock,
    /// What the client reads next, if it was not told otherwise.
    at: Option<(SourceId, u64)>,
}

/// Messages of one partition.
pub struct Piece {
    pub batch: RawBatch,
    /// They end before this offset.
    pub to: u64,
    /// So many of the first offsets are gone from the topic.
    pub lost: u64,
}

impl Reread {
    /// Waits for nobody: Kafka is spoken to when something is read.
    pub fn connect(settings: &KafkaSettings, clock: Clock) -> Result<Self, KafkaError> {
        Self::connect_with(settings, clock, &[])
    }

    /// For reading partitions in turn, and then no more.
    pub fn connect_for_turns(settings: &KafkaSettings, clock: Clock) -> Result<Self, KafkaError> {
        Self::connect_with(settings, clock, &[("fetch.wait.max.ms", TURN_WAIT_MS)])
    }

    fn connect_with(settings: &KafkaSettings, clock: Clock, more: &[(&str, &str)]) -> Result<Self, KafkaError> {
        let ours = [
            // Named for those who grant rights by it; never joined.
            ("group.id", settings.group.as_str()),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("enable.partition.eof", "true"),
            ("auto.offset.reset", "error"),
            ("isolation.level", "read_committed"),
            ("fetch.message.max.bytes", "1048576"),
            ("queued.max.messages.kbytes", AHEAD_KBYTES),
            ("fetch.queue.backoff.ms", "20"),
        ];
        let ours = [&ours, more].concat();
        let consumer = settings.client(&ours).create().map_err(|error| KafkaError::Setting(error.to_string()))?;
        Ok(Self { consumer, topic: settings.topic.clone(), clock, at: None })
    }

    /// The partition's first offset that is still there.
    pub fn first(&self, partition: SourceId) -> Result<u64, String> {
        self.ends(partition).map(|(first, _)| first)
    }

    /// Of each partition the first message that arrived no earlier than given; one that has none is left out.
    pub fn first_arriving(&self, since: &[(SourceId, Millis)]) -> Result<BTreeMap<SourceId, u64>, String> {
        if since.is_empty() {
            return Ok(BTreeMap::new());
        }
        let failed = |error: Failure| format!("Kafka: {error}");
        let mut asked = TopicPartitionList::new();
        for (partition, since) in since {
            let at = Offset::Offset((*since).max(0));
            asked.add_partition_offset(&self.topic, *partition as i32, at).map_err(failed)?;
        }
        let mut found = BTreeMap::new();
        for element in self.consumer.offsets_for_times(asked, ASK_TIMEOUT).map_err(failed)?.elements() {
            element.error().map_err(failed)?;
            if let Offset::Offset(offset) = element.offset() {
                found.insert(element.partition() as SourceId, offset.max(0) as u64);
            }
        }
        Ok(found)
    }

    fn ends(&self, partition: SourceId) -> Result<(u64, u64), String> {
        let ends = self.consumer.fetch_watermarks(&self.topic, partition as i32, ASK_TIMEOUT);
        let (first, end) = ends.map_err(|error| format!("Kafka: {error}"))?;
        Ok((first.max(0) as u64, end.max(0) as u64))
    }

    /// Messages `from..to` of a partition, or so many of the first of them that they have `bytes_max`.
    pub fn read(&mut self, partition: SourceId, from: u64, to: u64, bytes_max: usize) -> Result<Piece, String> {
        let (first, end) = self.ends(partition)?;
        if end < to {
            return Err(format!("partition {partition} of `{}` ends at {end}, and {to} was counted", self.topic));
        }
        let (first, mut bytes, mut messages) = (first.clamp(from, to), Vec::new(), Messages::default());
        let end =
            if first < to { self.collect(partition, first, to, bytes_max, &mut bytes, &mut messages)? } else { to };
        let len = bytes.len();
        bytes.resize(len + PADDING_BYTES, 0);
        let arrival = messages.arrivals().map_or(0, |(_, newest)| newest);
        let messages = Some(messages);
        let batch = RawBatch { bytes, len, zstd: None, arrival, client: Client::default(), messages };
        Ok(Piece { batch, to: end, lost: first - from })
    }

    /// When the first of messages `from..to` arrived that can hold an event; `None`: none of them can.
    pub fn first_arrival(&mut self, partition: SourceId, mut from: u64, to: u64) -> Result<Option<Millis>, String> {
        while from < to {
            let piece = self.read(partition, from, to, 0)?;
            let messages = piece.batch.messages.filter(|messages| !messages.is_empty());
            if let Some(messages) = messages {
                return Ok(Some(messages.get(0).arrival));
            }
            from = piece.to;
        }
        Ok(None)
    }

    /// Where what was collected ends.
    fn collect(
        &mut self,
        partition: SourceId,
        from: u64,
        to: u64,
        bytes_max: usize,
        bytes: &mut Vec<u8>,
        messages: &mut Messages,
    ) -> Result<u64, String> {
        let mut goes_on = self.at.take() == Some((partition, from));
        if !goes_on {
            self.go(partition, from)?;
        }
        let (mut heard, mut next) = (Instant::now(), from);
        loop {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) if message.partition() as SourceId != partition => {}
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let offset = message.offset().max(0) as u64;
                    next = offset + 1;
                    if offset >= to {
                        return Ok(to);
                    }
                    // One that can hold no event was put aside when it was counted.
                    if let Ok(lines) = lines(&message, &self.clock) {
                        bytes.extend_from_slice(&lines.value);
                        bytes.push(b'\n');
                        messages.push(bytes.len(), offset, lines.arrival, lines.address, lines.user_agent);
                    }
                    if bytes.len() >= bytes_max || offset + 1 == to {
                        self.at = Some((partition, offset + 1));
                        return Ok(offset + 1);
                    }
                }
                // The client read ahead, and met the end of that time: there may be messages by now.
                Some(Err(Failure::PartitionEOF(_))) if goes_on => {
                    self.go(partition, next)?;
                    goes_on = false;
                }
                // What follows the last message can hold none: ends of transactions.
                Some(Err(Failure::PartitionEOF(_))) => return Ok(to),
                Some(Err(Failure::MessageConsumption(code))) => return Err(format!("Kafka: {code}")),
                Some(Err(error)) => tracing::debug!(%error, "reading from Kafka once more"),
                None => {}
            }
            if heard.elapsed() > MESSAGE_WITHIN {
                return Err(format!("Kafka does not answer with messages of partition {partition}"));
            }
        }
    }

    fn go(&self, partition: SourceId, from: u64) -> Result<(), String> {
        let mut list = TopicPartitionList::new();
        let listed = list.add_partition_offset(&self.topic, partition as i32, Offset::Offset(from as i64));
        listed.and_then(|()| self.consumer.assign(&list)).map_err(|error| format!("Kafka: {error}"))
    }

    /// Whether the message at this offset arrived then, as far as it is still there.
    pub fn is_same(&mut self, partition: SourceId, offset: u64, arrival: Millis) -> Result<bool, String> {
        let (first, end) = self.ends(partition)?;
        if offset < first || offset >= end {
            return Ok(offset < first);
        }
        let piece = self.read(partition, offset, offset + 1, 0)?;
        Ok(piece.batch.messages.is_none_or(|messages| messages.is_empty() || messages.get(0).arrival == arrival))
    }
}
