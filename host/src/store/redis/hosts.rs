//! The hosts of an installation and by which definitions each measures, so that they notice when they do not agree.

use std::collections::BTreeMap;

use redis::Value;

use super::link::{Link, unexpected};
use super::value;
use crate::store::StoreError;
use crate::time::{DAY_MS, Millis};

/// A host that was not heard of for longer is not counted with.
const SEEN_WITHIN_MS: Millis = 60_000;

/// Says that this host is here, and gives the others that are, with the digest of their definitions.
pub fn meet(link: &mut Link, host: &str, digest: &str, now: Millis) -> Result<BTreeMap<String, String>, StoreError> {
    let key = link.key(&["hosts"]);
    let mut pipeline = redis::pipe();
    pipeline.hset(&key, host, format!("{now} {digest}")).ignore().hgetall(&key);
    let answers = link.pipe(&pipeline)?;
    let [Value::Array(entries)] = answers.as_slice() else { return Err(unexpected(&Value::Array(answers))) };
    let (mut others, mut gone) = (BTreeMap::new(), redis::pipe());
    for entry in entries.chunks_exact(2) {
        let (name, said) = (value::text(&entry[0])?, value::text(&entry[1])?);
        let (seen, digest) = said.split_once(' ').unwrap_or(("0", ""));
        let age = now - seen.parse::<Millis>().unwrap_or(0);
        if age > DAY_MS {
            gone.hdel(&key, name).ignore();
        } else if age <= SEEN_WITHIN_MS && name != host {
            others.insert(name.to_owned(), digest.to_owned());
        }
    }
    link.pipe(&gone)?;
    Ok(others)
}
