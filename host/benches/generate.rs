//! Makes the events that `make bench` measures with: `generate --events 4000000 --out FILE`. The same seed gives the same file.
//!
//! 500 bytes an event; seven shapes with other keys and key orders between each other; escapes and non-ASCII text; addresses of
//! more than 200 countries, 400 browsers, 50 categories, 500,000 users with an address each; unique ids; ten minutes of time.

use std::fmt::Write as _;
use std::io::{BufWriter, Write as _};
use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tidemark::runtime::demo::people;

const USERS: usize = 500_000;
const CATEGORIES: usize = 50;
const EVENT_BYTES: usize = 500;
const SPAN_MS: u64 = 10 * 60_000;
/// 2026-03-02T10:00:00Z.
const START_MS: u64 = 1_772_445_600_000;
const BLOCK_BYTES: usize = 1 << 20;

const TYPES: &[(&str, u32)] = &[("page_view", 70), ("search", 12), ("add_to_cart", 9), ("purchase", 5), ("error", 4)];
const WORDS: &[&str] = &[
    "Blåbærsyltetøy",
    "Größe 44",
    "crème brûlée",
    "東京の夜",
    "12\\\" vinyl",
    "back\\\\slash",
    "line\\nbreak",
    "caf\\u00e9",
    "plain words",
    "árvíztűrő tükörfúrógép",
    "tab\\tstop",
    "😀 smile",
];

struct Event<'a> {
    ts: u64,
    kind: &'a str,
    id: u64,
    user: usize,
    ip: Ipv4Addr,
    agent: &'a str,
    category: usize,
    cents: u32,
    ms: u32,
    word: &'a str,
}

fn main() -> Result<()> {
    let (events, out) = arguments()?;
    let rng = &mut SmallRng::seed_from_u64(20_260_302);
    let countries: Vec<_> = people::countries().collect();
    let addresses: Vec<Ipv4Addr> = (0..USERS).map(|user| countries[user % countries.len()].address(rng)).collect();
    let agents: Vec<&str> = people::browsers().map(|(_, agent)| agent).collect();
    let mut file = BufWriter::with_capacity(BLOCK_BYTES, std::fs::File::create(&out).context(out.clone())?);
    let mut line = String::new();
    for number in 0..events {
        let user = rng.random_range(0..USERS);
        let event = Event {
            ts: START_MS + number * SPAN_MS / events,
            kind: kind(rng),
            id: number,
            user,
            ip: addresses[user],
            agent: agents[user % agents.len()],
            category: rng.random_range(0..CATEGORIES),
            cents: rng.random_range(100..30_000),
            ms: rng.random_range(5..2_000),
            word: WORDS[rng.random_range(0..WORDS.len())],
        };
        line.clear();
        write_event(&event, rng, &mut line);
        file.write_all(line.as_bytes())?;
    }
    file.flush()?;
    Ok(())
}

fn arguments() -> Result<(u64, String)> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--events", events, "--out", out] => Ok((events.parse().context("--events")?, out.to_owned())),
        _ => bail!("usage: generate --events N --out FILE"),
    }
}

fn kind(rng: &mut SmallRng) -> &'static str {
    let mut drawn = rng.random_range(0..100);
    for (kind, share) in TYPES {
        if drawn < *share {
            return kind;
        }
        drawn -= share;
    }
    "page_view"
}

fn write_event(event: &Event, rng: &mut SmallRng, out: &mut String) {
    let Event { ts, kind, id, user, ip, agent, category, ms, word, .. } = event;
    let amount = format!("{}.{:02}", event.cents / 100, event.cents % 100);
    let page = rng.random_range(0..5_000);
    let session = rng.random::<u32>();
    // Writing to a string cannot fail.
    let _ = match id % 7 {
        0 => write!(
            out,
            r#"{{"ts":{ts},"type":"{kind}","id":"e-{id:x}","user_id":"u-{user}","url":"https://shop.example/c{category}/{page}","referrer":"https://www.example.com/search?q={page}","ip":"{ip}","user_agent":"{agent}","props":{{"amount":{amount},"category":"category {category}","ms":{ms},"title":"{word}"}}"#
        ),
        1 => write!(
            out,
            r#"{{"type":"{kind}","props":{{"category":"category {category}","ms":{ms},"amount":{amount},"currency":"USD"}},"user_agent":"{agent}","ip":"{ip}","session":{session},"user_id":"u-{user}","id":"e-{id:x}","ts":{ts},"path":"/c{category}/{page}""#
        ),
        2 => write!(
            out,
            r#"{{"id":"e-{id:x}","ts":{ts},"user_id":"u-{user}","type":"{kind}","context":{{"screen":{{"w":1920,"h":1080}},"locale":"de-DE","tags":["{word}","a,b","{{"]}},"ip":"{ip}","user_agent":"{agent}","props":{{"ms":{ms},"amount":{amount},"category":"category {category}"}}"#
        ),
        3 => write!(
            out,
            r#"{{"title":"{word}","user_id":"u-{user}","user_agent":"{agent}","type":"{kind}","ts":{ts},"props":{{"title":"{word}","category":"category {category}","items":[{{"sku":{page},"amount":1}},{{"sku":{session},"amount":2}}],"amount":{amount},"ms":{ms}}},"ip":"{ip}","id":"e-{id:x}""#
        ),
        4 => write!(
            out,
            r#"{{"v":2,"ts":{ts},"id":"e-{id:x}","ip":"{ip}","type":"{kind}","user_id":"u-{user}","flags":[true,false,null],"experiments":{{"checkout":"b","search":"a"}},"props":{{"amount":{amount},"ms":{ms},"category":"category {category}"}},"user_agent":"{agent}""#
        ),
        5 => write!(
            out,
            r#"{{"user_agent":"{agent}","referrer":"","url":"https://shop.example/{page}?{session}","user_id":"u-{user}","ts":{ts},"type":"{kind}","id":"e-{id:x}","ip":"{ip}","props":{{"nested":{{"amount":"no","category":7}},"category":"category {category}","amount":{amount},"ms":{ms}}},"note":"{word}""#
        ),
        _ => write!(
            out,
            r#"{{ "ts": {ts}, "type": "{kind}", "user_id": "u-{user}", "id": "e-{id:x}", "props": {{ "category": "category {category}", "amount": {amount}, "ms": {ms} }}, "ip": "{ip}", "user_agent": "{agent}", "session": "{session:08x}""#
        ),
    };
    fill(event, rng, out);
}

/// Something that no definition reads, up to the length wanted.
fn fill(event: &Event, rng: &mut SmallRng, out: &mut String) {
    out.push_str(r#","trace":""#);
    while out.len() + 19 < EVENT_BYTES {
        let _ = write!(out, "{:016x}", rng.random::<u64>());
    }
    let _ = writeln!(out, r#"","n":{}}}"#, event.id % 10);
}
