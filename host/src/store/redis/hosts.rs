//! The hosts of an installation: by which definitions each measures, so that they notice when they do not agree, which minutes
//! each still needs, so that none is dropped from Redis under a slow one, and whether one can take no more, so that none goes on.

use std::collections::BTreeMap;

use redis::Value;

use super::link::{Link, unexpected};
use super::value;
use crate::store::StoreError;
use crate::time::{DAY_MS, Millis, Minute};

/// A host that was not heard of for longer is not counted with.
const SEEN_WITHIN_MS: Millis = 60_000;

/// The other hosts that are here.
#[derive(Debug, PartialEq, Eq)]
pub struct Others {
    /// With the digest of their definitions.
    pub digests: BTreeMap<String, String>,
    /// None of them needs a minute before it. A host that has not said what it needs needs all.
    pub need_from: Minute,
    /// One of them has as much history waiting as it may.
    pub full: bool,
}

impl Default for Others {
    fn default() -> Self {
        Self { digests: BTreeMap::new(), need_from: Minute(u32::MAX), full: false }
    }
}

/// What a host says of itself.
pub struct Said<'s> {
    pub digest: &'s str,
    /// It needs no minute before.
    pub need_from: Minute,
    pub full: bool,
}

/// Says that this host is here, and hears of the others.
pub fn meet(link: &mut Link, host: &str, said: &Said<'_>, now: Millis) -> Result<Others, StoreError> {
    let key = link.key(&["hosts"]);
    let mut pipeline = redis::pipe();
    let Said { digest, need_from: Minute(need_from), full } = said;
    pipeline.hset(&key, host, format!("{now} {digest} {need_from} {}", u8::from(*full))).ignore().hgetall(&key);
    let answers = link.pipe(&pipeline)?;
    let [Value::Array(entries)] = answers.as_slice() else { return Err(unexpected(&Value::Array(answers))) };
    let (mut others, mut gone) = (Others::default(), redis::pipe());
    for entry in entries.chunks_exact(2) {
        let (name, said) = (value::text(&entry[0])?, value::text(&entry[1])?);
        let mut said = said.split(' ');
        let (seen, digest) = (said.next().unwrap_or_default(), said.next().unwrap_or_default());
        let needs = said.next().and_then(|minute| minute.parse().ok()).unwrap_or(0);
        let age = now - seen.parse::<Millis>().unwrap_or(0);
        if age > DAY_MS {
            gone.hdel(&key, name).ignore();
        } else if age <= SEEN_WITHIN_MS && name != host {
            others.digests.insert(name.to_owned(), digest.to_owned());
            others.need_from = others.need_from.min(Minute(needs));
            others.full |= said.next() == Some("1");
        }
    }
    link.pipe(&gone)?;
    Ok(others)
}

/// The host ends: nobody is to wait for it.
pub fn leave(link: &mut Link, host: &str) -> Result<(), StoreError> {
    let key = link.key(&["hosts"]);
    link.query(redis::cmd("HDEL").arg(key).arg(host)).map(drop)
}
