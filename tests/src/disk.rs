//! A full disk: 503 before any acknowledgement, readiness says why, what is there is still answered; when there is room again
//! the host goes on, and every acknowledged event is counted exactly once.
//!
//! The data folder is a small file system in memory, which takes root.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::host::{Home, Host, NDJSON, until};
use crate::trial::trial;

const DISK_BYTES: u64 = 96 << 20;
const BALLAST_BYTES: usize = 16 << 20;
const EVENTS_A_BATCH: u64 = 50;
/// Noise, which does not compress.
const NOISE_BYTES: usize = 8 << 10;

const DEFINITIONS: &str = r#"
[event]
time = "ts"
id = "id"

[dimensions]

[metrics]
events = "count()"
"#;

pub fn trials() -> Vec<Trial> {
    let reason = SmallDisk::mount(&std::env::temp_dir().join("tidemark-tests-may-mount")).err();
    if let Some(reason) = &reason {
        eprintln!("NOT RUN disk: {reason:#}");
    }
    vec![trial("disk::full_and_with_room_again", full).with_ignored_flag(reason.is_some())]
}

/// Unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let size = format!("size={DISK_BYTES}");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder).output()?;
        ensure!(done.status.success(), "no small disk: {}", String::from_utf8_lossy(&done.stderr).trim());
        Ok(Self(folder.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn full() -> Result<()> {
    let home = Home::new(DEFINITIONS)?;
    let data = home.path().join("data");
    let _disk = SmallDisk::mount(&data)?;
    std::fs::write(data.join("ballast"), vec![0; BALLAST_BYTES])?;
    let host = home.start_ready()?;
    let mut batches = Batches { next: 0, noise: SmallRng::seed_from_u64(1) };
    let refused = loop {
        ensure!(batches.next * EVENTS_A_BATCH * NOISE_BYTES as u64 <= 2 * DISK_BYTES, "the disk is never full");
        let answer = host.post(batches.body().as_bytes(), &[NDJSON])?;
        if answer.status != 202 {
            break answer;
        }
        batches.next += 1;
    };
    ensure!(refused.status == 503, "{} {}", refused.status, refused.text);
    ensure!(refused.headers.contains_key("retry-after"), "{:?}", refused.headers);
    let ready = host.get("/health/ready")?;
    ensure!(ready.status == 503 && ready.text.contains("No space left"), "{} {}", ready.status, ready.text);
    ensure!(host.get("/health/live")?.status == 200, "it lives");
    let visible = |batches: &Batches| Ok((counted(&host)? == batches.next * EVENTS_A_BATCH).then_some(()));
    until("what was acknowledged is still answered", || visible(&batches)).with_context(|| host.log())?;

    std::fs::remove_file(data.join("ballast"))?;
    until("room again", || Ok((host.post(batches.body().as_bytes(), &[NDJSON])?.status == 202).then_some(())))
        .with_context(|| host.log())?;
    batches.next += 1;
    until("what came after", || visible(&batches)).with_context(|| host.log())?;
    host.kill()?;
    let host = home.start_ready()?;
    let found = counted(&host)?;
    ensure!(found == batches.next * EVENTS_A_BATCH, "{found} counted, {} acknowledged", batches.next * EVENTS_A_BATCH);
    host.stop()
}

fn counted(host: &Host) -> Result<u64> {
    Ok(host.sums("metric=events")?.values().sum::<f64>() as u64)
}

/// The next batch is sent until it is acknowledged: its ids make that once.
struct Batches {
    next: u64,
    noise: SmallRng,
}

impl Batches {
    fn body(&mut self) -> String {
        let mut body = String::new();
        for number in self.next * EVENTS_A_BATCH..(self.next + 1) * EVENTS_A_BATCH {
            let noise: String = (0..NOISE_BYTES).map(|_| char::from(self.noise.random_range(b'A'..=b'Z'))).collect();
            let now = crate::host::now_ms();
            body.push_str(&format!("{{\"ts\":{now},\"id\":\"e{number}\",\"noise\":\"{noise}\"}}\n"));
        }
        body
    }
}
