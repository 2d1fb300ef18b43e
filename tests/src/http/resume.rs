//! Dashboards that lose their connection or their host, and what they hold once they are back.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::live::{Socket, connect, event, hear, hear_any, lively, say};
use super::{Check, counted};
use crate::host::{Host, until};

pub const CHECKS: &[Check] = &[
    ("resume_tells_what_was_missed", missed),
    ("resume_after_the_host_was_killed_and_started_again", killed),
    ("connections_beyond_the_limit_are_refused", limited),
];

/// A dashboard of one subscription, as a client without knowledge of the host keeps it.
pub struct Dashboard {
    asked: Value,
    seq: Value,
    epoch: Value,
    labels: Vec<String>,
    /// By labels and time.
    points: BTreeMap<(String, i64), Value>,
    socket: Option<Socket>,
}

impl Dashboard {
    /// Of `events` by country.
    pub fn open(host: &Host) -> Result<Self> {
        let asked = json!({"op": "subscribe", "id": "a", "metric": "events", "range": "1h", "by": ["country"]});
        let mut socket = connect(host, None)?;
        say(&mut socket, &asked)?;
        let snapshot = hear(&mut socket, "snapshot")?;
        let (labels, points) = (Vec::new(), BTreeMap::new());
        let mut dashboard = Self { asked, seq: json!(0), epoch: Value::Null, labels, points, socket: Some(socket) };
        dashboard.take(&snapshot)?;
        Ok(dashboard)
    }

    pub fn drop_connection(&mut self) {
        self.socket = None;
    }

    /// Whether what it missed came as a delta. `epoch`: it says which numbering of series it holds.
    pub fn come_back(&mut self, host: &Host, epoch: bool) -> Result<bool> {
        let mut asked = self.asked.clone();
        (asked["op"], asked["seq"]) = (json!("resume"), self.seq.clone());
        if epoch {
            asked["epoch"] = self.epoch.clone();
        }
        let mut socket = connect(host, None)?;
        say(&mut socket, &asked)?;
        self.socket = Some(socket);
        Ok(self.next()? == "delta")
    }

    /// Until it holds what a new one is told.
    pub fn agrees(&mut self, host: &Host) -> Result<()> {
        for _ in 0..1_000 {
            let fresh = Self::open(host)?;
            if fresh.points == self.points {
                return Ok(());
            }
            self.next()?;
        }
        bail!("it never holds what a new one is told: {:?}", self.points)
    }

    /// Until its points are so many in all.
    pub fn reaches(&mut self, total: f64) -> Result<()> {
        until(&format!("{total} in a dashboard"), || {
            if self.total() == total {
                return Ok(Some(()));
            }
            self.next().with_context(|| format!("{} so far", self.total()))?;
            Ok(None)
        })
    }

    pub fn total(&self) -> f64 {
        self.points.values().filter_map(Value::as_f64).sum()
    }

    fn next(&mut self) -> Result<&'static str> {
        let socket = self.socket.as_mut().context("no connection")?;
        let frame = hear_any(socket, &["snapshot", "delta"])?;
        self.take(&frame)?;
        Ok(if frame["op"] == "delta" { "delta" } else { "snapshot" })
    }

    fn take(&mut self, frame: &Value) -> Result<()> {
        let list = |name: &str| frame[name].as_array().cloned().unwrap_or_default();
        if frame["op"] == "snapshot" {
            self.epoch = frame["epoch"].clone();
            (self.labels, self.points) = (Vec::new(), BTreeMap::new());
            for series in list("series") {
                let labels = series["labels"].to_string();
                for point in series["points"].as_array().context("points")? {
                    self.points.insert((labels.clone(), point[0].as_i64().context("t")?), point[1].clone());
                }
                self.labels.push(labels);
            }
        } else {
            ensure!(frame["prev"] == self.seq, "after {}: {frame}", self.seq);
            self.labels.extend(list("new_series").iter().map(|series| series["labels"].to_string()));
            for point in list("points") {
                let labels = &self.labels[point[0].as_u64().context("an index")? as usize];
                let at = (labels.clone(), point[1].as_i64().context("t")?);
                match &point[2] {
                    Value::Null => drop(self.points.remove(&at)),
                    value => drop(self.points.insert(at, value.clone())),
                }
            }
        }
        self.seq = frame["seq"].clone();
        Ok(())
    }
}

fn missed() -> Result<()> {
    let (_home, host) = lively()?;
    host.send(&event("DE"))?;
    counted(&host, 1.0)?;
    let mut dashboard = Dashboard::open(&host)?;
    for (round, epoch) in [false, true, false].into_iter().enumerate() {
        dashboard.drop_connection();
        // A new series, and a point that it has already.
        host.send(&format!("{}{}", event(["FR", "US", "BR"][round]), event("DE")))?;
        counted(&host, 3.0 + 2.0 * round as f64)?;
        ensure!(dashboard.come_back(&host, epoch)?, "the host has been there all the time");
        // What is counted is shown with the next refresh.
        dashboard.reaches(3.0 + 2.0 * round as f64)?;
        dashboard.agrees(&host)?;
    }
    // What nobody was told is no place to go on from.
    dashboard.drop_connection();
    dashboard.seq = json!(1);
    ensure!(!dashboard.come_back(&host, false)?, "a change number that was never told");
    dashboard.agrees(&host)
}

fn killed() -> Result<()> {
    let (home, mut host) = lively()?;
    host.send(&event("US"))?;
    counted(&host, 1.0)?;
    let mut dashboard = Dashboard::open(&host)?;
    for round in 1..=4_u32 {
        host.send(&event("DE"))?;
        counted(&host, f64::from(2 * round))?;
        dashboard.agrees(&host)?;
        dashboard.drop_connection();
        if round % 2 == 0 {
            host.kill()?;
        } else {
            host.stop()?;
        }
        host = home.start_ready()?;
        // As many change numbers as before are given out again: none may mean what it meant then.
        host.send(&event("FR"))?;
        counted(&host, f64::from(2 * round + 1))?;
        let _others = Dashboard::open(&host)?;
        dashboard.come_back(&host, round > 2)?;
        dashboard.reaches(f64::from(2 * round + 1))?;
        dashboard.agrees(&host)?;
    }
    host.stop()
}

fn limited() -> Result<()> {
    let home = crate::host::Home::new(super::DEFINITIONS)?.with_flags(&["--connections-max", "2"]);
    let host = home.start_ready()?;
    let (first, _second) = (connect(&host, None)?, connect(&host, None)?);
    let refused = connect(&host, None).err().context("a third was let in")?;
    ensure!(refused.to_string().contains("503"), "{refused}");
    drop(first);
    until("a free place", || Ok(connect(&host, None).ok()))?;
    Ok(())
}
