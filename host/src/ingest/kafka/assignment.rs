//! Which partitions are ours and where we are in them: taken where the state stands, ids before what is counted, let go when all
//! that was read is part of the state. And nobody beside us, where the state is only ours.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::Offset;

use super::Counting;
use super::consumer::Consumer;
use super::group::others;
use super::locate::{Lost, Place, locate};
use super::partition::{Partition, Stage};
use crate::engine::delta::SourceId;
use crate::telemetry::ByPartition;

const RETRY: Duration = Duration::from_millis(500);
const SEEK_TIMEOUT: Duration = Duration::from_secs(10);

impl<C: Counting> Consumer<C> {
    /// Partitions that are ours from now on are taken where the state stands.
    pub(super) fn assigned(&mut self, numbers: &[i32]) -> Result<(), String> {
        self.expect_nobody(Duration::ZERO)?;
        self.assigned = true;
        if numbers.is_empty() {
            return self.take_up(&TopicPartitionList::new());
        }
        let sources: Vec<SourceId> = numbers.iter().map(|number| *number as SourceId).collect();
        let places = loop {
            let taken = self.counting.take_over(&sources).map_err(Lost::NotNow);
            match taken.and_then(|()| locate(&self.consumer, &self.settings, numbers, &*self.counting)) {
                Ok(places) => break places,
                Err(Lost::NotNow(reason)) => tracing::warn!(reason, "partitions cannot be located yet"),
                Err(lost) => return Err(lost.to_string()),
            }
            if self.shared.stop.load(Relaxed) {
                return Ok(());
            }
            std::thread::park_timeout(RETRY);
        };
        self.generation = self.counting.generation();
        let mut list = TopicPartitionList::new();
        for place in &places {
            list.add_partition_offset(&self.settings.topic, place.partition, Offset::Offset(place.from as i64))
                .map_err(|error| error.to_string())?;
            self.partitions.insert(place.partition, Partition::astray(place.partition as u32, 0));
            self.locate(place);
        }
        self.take_up(&list)?;
        tracing::info!(?numbers, "partitions taken");
        if self.paused {
            self.pause(numbers);
        }
        Ok(())
    }

    fn take_up(&self, list: &TopicPartitionList) -> Result<(), String> {
        self.consumer.incremental_assign(list).map_err(|error| error.to_string())?;
        self.consumer.context().answered();
        Ok(())
    }

    fn locate(&mut self, place: &Place) {
        if place.lost > 0 {
            let Place { partition, lost, .. } = place;
            tracing::error!(partition, messages = lost, "the topic's retention took messages before they were counted");
            self.telemetry.kafka.messages_lost.inc_by(*lost);
        }
        if let Some(partition) = self.partitions.get_mut(&place.partition) {
            self.buffered_bytes -= partition.buffered_bytes();
            partition.locate(place.from, place.next, place.target, place.arrival, self.generation);
        }
    }

    /// Partitions that are no longer ours are let go when what was read of them is part of the state.
    pub(super) fn revoked(&mut self, numbers: &[i32]) -> Result<(), String> {
        self.flush_all();
        if let Err(reason) = self.counting.settle() {
            tracing::warn!(reason, "partitions are let go before all that was read of them is stored");
        }
        let mut list = TopicPartitionList::new();
        for number in numbers {
            if let Some(partition) = self.partitions.remove(number) {
                self.buffered_bytes -= partition.buffered_bytes();
            }
            self.telemetry.kafka.lag.remove(&ByPartition { partition: *number as u32 });
            list.add_partition(&self.settings.topic, *number);
        }
        let gone: Vec<SourceId> = numbers.iter().map(|number| *number as SourceId).collect();
        self.shared.floors.remove(&gone);
        self.consumer.incremental_unassign(&list).map_err(|error| error.to_string())?;
        self.consumer.context().answered();
        tracing::info!(?numbers, "partitions let go");
        self.expect_nobody(Duration::ZERO)
    }

    /// State that is kept in this host cannot follow its partitions to another one.
    pub(super) fn expect_nobody(&self, wait: Duration) -> Result<(), String> {
        if !self.settings.alone {
            return Ok(());
        }
        let own = format!("tidemark-{}", self.settings.instance);
        let (started, mut said) = (Instant::now(), false);
        while let Some(others) = others(&self.consumer, &self.settings.group, &own).filter(|others| !others.is_empty())
        {
            if started.elapsed() >= wait || self.shared.stop.load(Relaxed) {
                return Err(format!(
                    "the group `{}` has other members ({}), but this host keeps its state to itself, and partitions that move would lose theirs: give several hosts one --redis, or each its own --group",
                    self.settings.group,
                    others.join(", ")
                ));
            }
            if !said {
                tracing::warn!(?others, "the group has other members; waiting for them to be gone");
                said = true;
            }
            std::thread::park_timeout(RETRY);
        }
        Ok(())
    }

    /// What was given and is not stored was dropped: all partitions are read again from what is stored.
    pub(super) fn follow_generation(&mut self) {
        let generation = self.counting.generation();
        if self.generation == generation {
            return;
        }
        self.generation = generation;
        for partition in self.partitions.values_mut() {
            self.buffered_bytes -= partition.buffered_bytes();
            *partition = Partition::astray(partition.number, partition.floor);
        }
        self.retry_at = None;
    }

    pub(super) fn find_astray(&mut self) -> Result<(), String> {
        let astray = self.partitions.values().filter(|partition| partition.stage == Stage::Astray);
        let numbers: Vec<i32> = astray.map(|partition| partition.number as i32).collect();
        if numbers.is_empty() || self.retry_at.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        self.retry_at = Some(Instant::now() + RETRY);
        match self.seek(&numbers) {
            Ok(()) => tracing::info!(?numbers, "partitions are read again from what is stored"),
            Err(Lost::NotNow(reason)) => tracing::warn!(reason, "partitions cannot be located yet"),
            Err(lost) => return Err(lost.to_string()),
        }
        Ok(())
    }

    fn seek(&mut self, numbers: &[i32]) -> Result<(), Lost> {
        let places = locate(&self.consumer, &self.settings, numbers, &*self.counting)?;
        let mut list = TopicPartitionList::new();
        for place in &places {
            list.add_partition_offset(&self.settings.topic, place.partition, Offset::Offset(place.from as i64))?;
        }
        let sought = self.consumer.seek_partitions(list, SEEK_TIMEOUT)?;
        sought.elements().iter().try_for_each(|element| element.error())?;
        places.iter().for_each(|place| self.locate(place));
        if !self.paused {
            self.resume(numbers);
        }
        Ok(())
    }

    pub(super) fn ids_read(&mut self, number: i32) {
        self.flush(number);
        let Some(partition) = self.partitions.get_mut(&number) else { return };
        if let Stage::Ids { until } = partition.stage {
            partition.hold(until);
            self.pause(&[number]);
        }
    }

    /// When all ids are remembered, counting begins: else an event would be counted again whose id is about to be.
    pub(super) fn count_held(&mut self) {
        let held = |partition: &&Partition| partition.stage == Stage::Held;
        let waits = |partition: &&Partition| matches!(partition.stage, Stage::Ids { .. } | Stage::Astray);
        let numbers: Vec<i32> = self.partitions.values().filter(held).map(|it| it.number as i32).collect();
        if numbers.is_empty() || self.partitions.values().any(|partition| waits(&partition)) {
            return;
        }
        self.counting.drain();
        for number in &numbers {
            if let Some(partition) = self.partitions.get_mut(number) {
                partition.stage = Stage::Counting;
            }
        }
        if !self.paused {
            self.resume(&numbers);
        }
    }
}
