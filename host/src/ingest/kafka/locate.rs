//! Where a partition goes on: at the stored position, and before it as far as ids are remembered.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError as Failure;
use rdkafka::topic_partition_list::Offset;

use super::group::Group;
use super::reread::Reread;
use super::{Counting, KafkaSettings, Stored};
use crate::time::Clock;

const ASK_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub partition: i32,
    /// Read from here.
    pub from: u64,
    /// Counted from here.
    pub next: u64,
    /// The partition's end as of now.
    pub target: u64,
    pub arrival: i64,
    /// Messages that were to be counted and are gone.
    pub lost: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// May work later.
    #[error("{0}")]
    NotNow(String),
    /// The log is not the one that the state was counted from.
    #[error(
        "partition {partition} of `{topic}` ends at {end}, but the state counted up to {next}: it is another topic of the same name, or one that lost what it had acknowledged. Counting would go wrong: give an empty --data folder, or another --topic"
    )]
    Shorter { topic: String, partition: i32, end: u64, next: u64 },
    #[error(
        "partition {partition} of `{topic}` has messages before {next}, up to where the state counted, that arrived after all that was counted: it is another topic of the same name. Counting would go wrong: give an empty --data folder, or another --topic"
    )]
    Another { topic: String, partition: i32, next: u64 },
}

impl From<Failure> for Lost {
    fn from(error: Failure) -> Self {
        Self::NotNow(error.to_string())
    }
}

pub fn locate(
    consumer: &BaseConsumer<Group>,
    settings: &KafkaSettings,
    partitions: &[i32],
    counting: &impl Counting,
) -> Result<Vec<Place>, Lost> {
    let topic = settings.topic.as_str();
    let numbers: Vec<u32> = partitions.iter().map(|&partition| partition as u32).collect();
    counting.take_over(&numbers).map_err(Lost::NotNow)?;
    let stored = counting.positions().map_err(Lost::NotNow)?;
    let mut places = Vec::with_capacity(partitions.len());
    for &partition in partitions {
        let stored = stored.iter().find(|(number, _)| *number as i32 == partition).map(|(_, stored)| *stored);
        let (first, end) = consumer.fetch_watermarks(topic, partition, ASK_TIMEOUT)?;
        let place = place(partition, stored, first.max(0) as u64, end.max(0) as u64);
        places.push(place.map_err(|next| Lost::Shorter {
            topic: topic.to_owned(),
            partition,
            end: end as u64,
            next,
        })?);
    }
    refuse_another(consumer, settings, &places)?;
    if let Some(span) = counting.dedupe_ms() {
        look_back(consumer, topic, &mut places, span)?;
    }
    Ok(places)
}

/// A topic that was made anew under the same name and has grown past what was counted: all that it holds arrived later. Kafka
/// is asked by time, once for all partitions. Where it finds something before the position a message is read, since the end
/// of a transaction has a time of its own and is nothing that was counted.
fn refuse_another(consumer: &BaseConsumer<Group>, settings: &KafkaSettings, places: &[Place]) -> Result<(), Lost> {
    let topic = settings.topic.as_str();
    let mut asked = TopicPartitionList::new();
    for place in places.iter().filter(|place| place.next > 0 && place.lost == 0) {
        asked.add_partition_offset(topic, place.partition, Offset::Offset(place.arrival + 1))?;
    }
    if asked.count() == 0 {
        return Ok(());
    }
    let mut reread = None;
    for element in consumer.offsets_for_times(asked, ASK_TIMEOUT)?.elements() {
        element.error()?;
        let place = places.iter().find(|place| place.partition == element.partition());
        let (Some(place), Offset::Offset(from)) = (place, element.offset()) else { continue };
        let (from, partition, next) = (from.max(0) as u64, place.partition, place.next);
        if from >= next {
            continue;
        }
        if reread.is_none() {
            let connected = Reread::connect(settings, Clock::manual(0));
            reread = Some(connected.map_err(|error| Lost::NotNow(error.to_string()))?);
        }
        let Some(reread) = &mut reread else { continue };
        let arrival = reread.first_arrival(partition as u32, from, next).map_err(Lost::NotNow)?;
        if arrival.is_some_and(|arrival| arrival > place.arrival) {
            return Err(Lost::Another { topic: topic.to_owned(), partition, next });
        }
    }
    Ok(())
}

/// `first..end` is what the partition holds. `Err`: what is stored as the next position.
fn place(partition: i32, stored: Option<Stored>, first: u64, end: u64) -> Result<Place, u64> {
    let (next, arrival) = stored.map_or((0, 0), |stored| (stored.next, stored.arrival));
    if next > end {
        return Err(next);
    }
    // Without a position nothing was to be counted of what is gone.
    let lost = if stored.is_some() { first.saturating_sub(next) } else { 0 };
    Ok(Place { partition, from: next.max(first), next, target: end, arrival, lost })
}

/// Ids are remembered from the messages that arrived within `span` before the position.
fn look_back(consumer: &BaseConsumer<Group>, topic: &str, places: &mut [Place], span: i64) -> Result<(), Lost> {
    let mut asked = TopicPartitionList::new();
    for place in places.iter().filter(|place| place.next > 0 && place.lost == 0) {
        asked.add_partition_offset(topic, place.partition, Offset::Offset((place.arrival - span).max(0)))?;
    }
    if asked.count() == 0 {
        return Ok(());
    }
    let found = consumer.offsets_for_times(asked, ASK_TIMEOUT)?;
    for element in found.elements() {
        element.error()?;
        let place = places.iter_mut().find(|place| place.partition == element.partition());
        if let (Some(place), Offset::Offset(from)) = (place, element.offset()) {
            place.from = place.from.min(from.max(0) as u64);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_where_the_state_stands() {
        let stored = |next| Some(Stored { next, arrival: 7 });
        let at = |from, next, target, arrival, lost| Ok(Place { partition: 1, from, next, target, arrival, lost });
        // Nothing stored: from its beginning, wherever that is.
        assert_eq!(place(1, None, 0, 0), at(0, 0, 0, 0, 0));
        assert_eq!(place(1, None, 40, 90), at(40, 0, 90, 0, 0));
        assert_eq!(place(1, stored(60), 40, 90), at(60, 60, 90, 7, 0));
        assert_eq!(place(1, stored(90), 40, 90), at(90, 90, 90, 7, 0));
        // Retention was faster than we.
        assert_eq!(place(1, stored(30), 40, 90), at(40, 30, 90, 7, 10));
        // Another topic of the same name.
        assert_eq!(place(1, stored(91), 0, 90), Err(91));
        assert_eq!(place(1, stored(1), 0, 0), Err(1));
    }
}
