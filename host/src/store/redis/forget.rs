//! Dropping what is past its time: first the floor is raised, then keys go. Done again after a crash in between, it goes on.

use std::collections::BTreeSet;

use redis::Value;

use super::link::{Function, Link};
use super::parts::{BUCKET, Space};
use super::shape;
use super::value::{self, Answer};
use crate::store::memory::{COUNTED_DAYS, MetricShape};
use crate::store::{Seq, StoreError};
use crate::time::Minute;

/// What a metric has that is past its time. That it exists stays known: a delta may bring more of it at any moment.
struct Old {
    fingerprint: String,
    shape: MetricShape,
    /// With their last change.
    minutes: Vec<(Minute, Seq)>,
}

/// Drops minutes before `before`; where the state is whole from then on. `None`: something is still being merged.
pub fn forget_before(link: &mut Link, before: Minute) -> Result<Option<Minute>, StoreError> {
    let metrics = old(link, before)?;
    let newest = metrics.iter().flat_map(|old| &old.minutes).map(|(_, seq)| *seq).max().unwrap_or(0);
    let (token, minute, newest) = (link.token().to_owned(), before.0.to_string(), newest.to_string());
    let arguments = [token.as_bytes(), minute.as_bytes(), newest.as_bytes()];
    let answer = Answer::of(link.call(Function::Floor, &arguments)?)?;
    if answer.word() == b"busy" {
        return Ok(None);
    }
    let floor = Minute(answer.number(0)?);
    for old in metrics {
        forget_metric(link, &old, floor)?;
    }
    forget_values(link, floor)?;
    Ok(Some(floor))
}

fn old(link: &mut Link, before: Minute) -> Result<Vec<Old>, StoreError> {
    let shapes = link.query(redis::cmd("HGETALL").arg(link.key(&["shapes"])))?;
    let mut metrics = Vec::new();
    for (fingerprint, shape) in value::pairs(&shapes)? {
        let fingerprint = value::text(fingerprint)?.to_owned();
        let key = link.key(&["changed", &fingerprint]);
        let changed = link.query(redis::cmd("ZRANGE").arg(key).arg(0).arg(-1).arg("WITHSCORES"))?;
        let pair = |(minute, seq): (&Value, &Value)| Ok((Minute(value::number(minute)?), value::number(seq)?));
        let minutes: Vec<(Minute, Seq)> = value::pairs(&changed)?.map(pair).collect::<Result<_, StoreError>>()?;
        let minutes = minutes.into_iter().filter(|(minute, _)| *minute < before).collect();
        metrics.push(Old { fingerprint, shape: shape::decode(value::bytes(shape)?)?, minutes });
    }
    Ok(metrics)
}

fn forget_metric(link: &mut Link, old: &Old, floor: Minute) -> Result<(), StoreError> {
    let days: BTreeSet<u32> = old.minutes.iter().map(|(minute, _)| minute.day()).collect();
    for &day in &days {
        let list = link.key(&["list", &format!("{}:{day}", old.fingerprint)]);
        let full: u32 = value::number(&link.query(redis::cmd("LLEN").arg(&list))?)?;
        // As many margins at most: the total, and for each dimension a value a combination.
        let margins = full * old.shape.dimensions.len() as u32 + 1;
        for (minute, _) in old.minutes.iter().filter(|(minute, _)| minute.day() == day) {
            forget_pane(link, old, *minute, [(Space::Full, full), (Space::Margins, margins)])?;
        }
        if day < floor.day() {
            let names = ["number", "list", "kept"].map(|what| link.key(&[what, &format!("{}:{day}", old.fingerprint)]));
            link.query(redis::cmd("UNLINK").arg(&names))?;
        }
    }
    Ok(())
}

fn forget_pane(link: &mut Link, old: &Old, minute: Minute, spaces: [(Space, u32); 2]) -> Result<(), StoreError> {
    let (fingerprint, at) = (old.fingerprint.as_str(), minute.0.to_string());
    let mut unlink = redis::cmd("UNLINK");
    let sketches = (0..old.shape.kinds.len()).filter(|&slot| old.shape.kinds[slot].is_sketch());
    let slots: Vec<String> = sketches.map(|slot| slot.to_string()).collect();
    for (space, numbers) in spaces {
        for bucket in 0..numbers.div_ceil(BUCKET) {
            let bucket = bucket.to_string();
            unlink.arg(link.key(&["r", fingerprint, &at, space.name(), &bucket]));
            for slot in &slots {
                unlink.arg(link.key(&["u", fingerprint, &at, slot, space.name(), &bucket]));
            }
        }
    }
    let set = link.key(&["dense", fingerprint, &at]);
    let dense = link.query(redis::cmd("SMEMBERS").arg(&set))?;
    for cell in value::list(&dense)? {
        unlink.arg(link.key(&["d", fingerprint, &at, value::text(cell)?]));
    }
    unlink.arg(&set);
    let mut pipeline = redis::pipe();
    pipeline.add_command(unlink);
    pipeline.cmd("ZREM").arg(link.key(&["changed", fingerprint])).arg(minute.0);
    pipeline.cmd("HDEL").arg(link.key(&["readable", fingerprint])).arg(minute.0);
    link.pipe(&pipeline).map(drop)
}

/// Lists of values, and what a dimension's limit kept.
fn forget_values(link: &mut Link, floor: Minute) -> Result<(), StoreError> {
    let changed = link.query(redis::cmd("ZRANGE").arg(link.key(&["changed_values"])).arg(0).arg(-1))?;
    for name in value::list(&changed)? {
        let name = value::text(name)?;
        let Some((day, dimension)) = name.split_once(':') else { continue };
        let Ok(number) = day.parse::<u32>() else { continue };
        let mut pipeline = redis::pipe();
        if number < floor.day() {
            let names = ["number", "list", "kept"].map(|what| link.key(&[what, &format!("={dimension}:{day}")]));
            pipeline.cmd("UNLINK").arg(&names);
        }
        if number + COUNTED_DAYS < floor.day() {
            pipeline.cmd("UNLINK").arg(link.key(&["values", dimension, day]));
            pipeline.cmd("ZREM").arg(link.key(&["changed_values"])).arg(name);
        }
        link.pipe(&pipeline)?;
    }
    Ok(())
}
