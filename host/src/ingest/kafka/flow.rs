//! How far the consumer is, for all who want to know, and how it is held back by those who count.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::topic_partition_list::Offset;

use super::Counting;
use super::consumer::Consumer;
use super::group::Progress;
use super::partition::{Partition, Stage};
use crate::telemetry::ByPartition;
use crate::time::Millis;

/// With so much waiting nothing is polled; if that lasts, partitions are paused.
const PAUSE_AFTER: Duration = Duration::from_secs(1);
/// What a leader said is no older than this.
const STALE_MS: Millis = 500;
/// The group is told of our positions this often, for those who watch it: nothing here reads them. Not where we are alone: a
/// member that is known by its instance is fenced for good if a commit crosses its own coming back.
const COMMIT_EVERY: Duration = Duration::from_secs(5);

impl<C: Counting> Consumer<C> {
    /// Whoever counts is behind: nothing more is read until it has caught up.
    pub(super) fn hold_back(&mut self) -> Result<(), String> {
        let full = |this: &Self| this.counting.waiting_bytes() + this.producer.letter_bytes() >= this.queue_bytes_max;
        let numbers = |this: &Self| this.partitions.keys().copied().collect::<Vec<_>>();
        if self.paused {
            let waiting = self.counting.waiting_bytes() + self.producer.letter_bytes();
            if waiting < self.queue_bytes_max / 2 {
                self.paused = false;
                let held = |number: &i32| self.partitions.get(number).is_some_and(|it| it.stage != Stage::Held);
                let going: Vec<i32> = numbers(self).into_iter().filter(held).collect();
                self.resume(&going);
            }
            return Ok(());
        }
        let since = Instant::now();
        while full(self) && !self.shared.stop.load(Relaxed) {
            if since.elapsed() > PAUSE_AFTER {
                self.paused = true;
                self.pause(&numbers(self));
                self.telemetry.kafka.pauses.inc();
                break;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        Ok(())
    }

    pub(super) fn pause(&self, numbers: &[i32]) {
        if let Err(error) = self.consumer.pause(&self.list(numbers)) {
            tracing::warn!(%error, "partitions cannot be paused");
        }
    }

    pub(super) fn resume(&self, numbers: &[i32]) {
        if let Err(error) = self.consumer.resume(&self.list(numbers)) {
            tracing::warn!(%error, "partitions cannot be resumed");
        }
    }

    pub(super) fn list(&self, numbers: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for number in numbers {
            list.add_partition(&self.settings.topic, *number);
        }
        list
    }

    /// How far each partition is, and up to when all is given.
    pub(super) fn progress(&mut self, progress: &Progress) {
        self.flush_all();
        self.shared.reachable.store(progress.reachable, Relaxed);
        let now = self.clock.now();
        for (number, partition) in &mut self.partitions {
            let end = progress.ends.get(number).copied();
            if let Some(end) = end {
                let lag = end.saturating_sub(partition.end);
                self.telemetry.kafka.lag.get_or_create(&ByPartition { partition: partition.number }).set(lag as i64);
            }
            let caught_up = partition.is_caught_up() && !self.paused && end.is_some_and(|end| partition.end >= end);
            let floor = if caught_up { now - STALE_MS } else { partition.arrival().min(now) };
            partition.floor = partition.floor.max(floor);
        }
        self.shared.floors.set(self.partitions.values().map(|it| (it.number, it.floor)).collect());
        if !self.settings.alone && self.committed_at.elapsed() >= COMMIT_EVERY {
            self.committed_at = Instant::now();
            self.commit();
        }
    }

    pub(super) fn note_caught_up(&mut self) {
        if self.assigned
            && !self.shared.caught_up.load(Relaxed)
            && self.partitions.values().all(Partition::is_caught_up)
        {
            self.flush_all();
            self.shared.caught_up.store(true, Relaxed);
        }
    }

    fn commit(&self) {
        let Ok(stored) = self.counting.positions() else { return };
        let mut list = TopicPartitionList::new();
        for (number, stored) in stored {
            if self.partitions.contains_key(&(number as i32)) {
                // An offset that cannot be named is not told.
                let _ =
                    list.add_partition_offset(&self.settings.topic, number as i32, Offset::Offset(stored.next as i64));
            }
        }
        if list.count() > 0
            && let Err(error) = self.consumer.commit(&list, CommitMode::Async)
        {
            tracing::debug!(%error, "the group was not told of our positions");
        }
    }
}
