//! Clients that send until some host takes what they have.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use ureq::Agent;

use super::members::{Cluster, Fault};
use crate::host::{self, NDJSON, until_within};
use crate::kill::Batch;

const CLIENTS: usize = 3;
/// The broker may be down for as long as it takes to start it again.
const TAKEN_WITHIN: Duration = tidemark_services::DEADLINE.saturating_add(host::DEADLINE);
/// So that a client tries another host than a paused one soon.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Clients send every batch until some host acknowledges it; the fault comes after a third of them and ends after another.
pub fn load(cluster: &mut Cluster, queue: &[Batch], fault: Fault, host: usize) -> Result<()> {
    let (next, acknowledged, failed) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let urls = cluster.urls.clone();
    let complaint = Mutex::new(None);
    let client = |number: usize| {
        let agent: Agent =
            Agent::config_builder().http_status_as_error(false).timeout_global(Some(ANSWER_WITHIN)).build().into();
        let mut turn = number;
        loop {
            let at = next.fetch_add(1, Ordering::AcqRel);
            let Some(batch) = queue.get(at) else { return };
            let sent = until_within(TAKEN_WITHIN, "a host to take a batch", || {
                turn += 1;
                let url = {
                    let urls = urls.read().expect("no panic");
                    let Some(url) = urls.get(turn % urls.len().max(1)) else { return Ok(None) };
                    url.clone()
                };
                let Ok(answer) = host::post(&agent, &url, batch.body.as_bytes(), &[NDJSON]) else { return Ok(None) };
                ensure!(matches!(answer.status, 202 | 429 | 503), "{} {}", answer.status, answer.text);
                Ok((answer.status == 202).then_some(()))
            });
            if let Err(error) = sent {
                failed.store(true, Ordering::Release);
                *complaint.lock().expect("no panic") = Some(error);
                return;
            }
            acknowledged.fetch_add(1, Ordering::AcqRel);
        }
    };
    let client = &client;
    let outcome = std::thread::scope(|scope| -> Result<()> {
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        let reached = |count: usize| {
            until_within(TAKEN_WITHIN, "batches to be acknowledged", || {
                let over = clients.iter().all(|client| client.is_finished());
                Ok((over || acknowledged.load(Ordering::Acquire) >= count).then_some(()))
            })
        };
        reached(queue.len() / 3)?;
        cluster.harm(fault, host)?;
        if fault.is_of_clickhouse() {
            // Events are taken all the same.
            reached(queue.len() * 2 / 3)?;
        }
        cluster.heal(fault, host)?;
        reached(queue.len())
    });
    if let Some(error) = complaint.into_inner().expect("no panic") {
        return Err(error);
    }
    outcome
}
