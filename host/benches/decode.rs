//! The decoder beside a typed parse of the same fields by sonic-rs, on generated events of about 500 bytes.
//!
//! `cargo bench --bench decode`: nanoseconds an event for both, the best of several rounds in one process, and the ratio.

use std::hint::black_box;
use std::time::Instant;

use tidemark::engine::decode::{Decoder, Kind, PADDING_BYTES, Rows};

const EVENTS: usize = 20_000;
const ROUNDS: usize = 40;
const ROWS_MAX: usize = 1024;
const PATHS: [&str; 9] = ["ts", "id", "type", "user_id", "ip", "user_agent", "url", "props.category", "props.amount"];

/// What the typed parse fills; borrowed where there is no escape.
#[derive(serde::Deserialize)]
#[allow(dead_code)]
struct Event<'a> {
    ts: u64,
    #[serde(borrow)]
    id: std::borrow::Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    user_id: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    ip: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    user_agent: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    url: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    props: Props<'a>,
}

#[derive(serde::Deserialize)]
#[allow(dead_code)]
struct Props<'a> {
    #[serde(borrow, default)]
    category: Option<std::borrow::Cow<'a, str>>,
    #[serde(default)]
    amount: Option<f64>,
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len() as u64) as usize]
    }
}

/// One event: seven shapes differ in the order of keys, in escapes, UTF-8 and nested arrays; shape 0 is the plain one.
fn event(random: &mut Random, shape: u64) -> String {
    let category = random.of(&["shoes", "books", "garden", "toys", "électronique"]);
    let category = if shape == 0 { "shoes" } else { category };
    let title = match shape {
        2 => r#"10\" skillet \u00e9dition \/ black"#,
        3 => "Крем для рук, 75 мл — новый",
        _ => "Running shoe, men, size 44, black",
    };
    let agent = random.of(&[
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0 Safari/537.36",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Version/18.1 Mobile Safari/604.1",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:132.0) Gecko/20100101 Firefox/132.0",
    ]);
    let kind = random.of(&["page_view", "page_view", "page_view", "click", "add_to_cart", "purchase"]);
    let ts = format!(r#""ts":{}"#, 1_764_000_000_000 + random.below(86_400_000));
    let id = format!(r#""id":"{:016x}{:08x}""#, random.below(u64::MAX), random.below(1 << 32));
    let kind = format!(r#""type":"{kind}""#);
    let user = format!(r#""user_id":"u{}""#, random.below(100_000));
    let ip = format!(
        r#""ip":"{}.{}.{}.{}""#,
        random.below(223) + 1,
        random.below(256),
        random.below(256),
        random.below(256)
    );
    let agent = format!(r#""user_agent":"{agent}""#);
    let url = format!(r#""url":"https://shop.example/p/{}""#, random.below(5_000));
    let session = format!(r#""session_id":"s-{}""#, random.below(1 << 40));
    let rest = format!(
        r#""locale":"{}","referrer":"https://www.example.com/search","screen_width":{},"consent":{}"#,
        random.of(&["en-US", "de-DE", "fr-FR"]),
        320 + random.below(2200),
        random.of(&["true", "false", "null"]),
    );
    let amount = format!("{}.{:02}", random.below(500), random.below(100));
    let props = match shape {
        4 => format!(
            r#""props":{{"items":[{{"sku":"A-{}","n":1,"tags":["x","y"]}},{{"sku":"B-7","n":2,"tags":[]}}],"category":"{category}","amount":{amount}}}"#,
            random.below(1000)
        ),
        5 => format!(r#""props":{{"amount":{amount},"category":"{category}","title":"{title}","in_stock":true}}"#),
        _ => format!(
            r#""props":{{"category":"{category}","amount":{amount},"quantity":{},"title":"{title}","in_stock":true,"rank":{}}}"#,
            random.below(9) + 1,
            random.below(1000)
        ),
    };
    let parts = match shape {
        1 => [&id, &ts, &user, &kind, &url, &agent, &ip, &session, &rest, &props],
        4 => [&kind, &ts, &id, &user, &props, &ip, &agent, &url, &rest, &session],
        5 => [&props, &rest, &session, &ts, &id, &kind, &user, &ip, &agent, &url],
        6 => [&ts, &kind, &id, &session, &user, &rest, &ip, &url, &agent, &props],
        _ => [&ts, &id, &kind, &user, &session, &ip, &agent, &url, &rest, &props],
    };
    format!("{{{}}}", parts.map(String::as_str).join(","))
}

fn batch(shape: impl Fn(&mut Random) -> u64) -> Vec<u8> {
    let mut random = Random(7);
    let mut batch = Vec::new();
    for _ in 0..EVENTS {
        let shape = shape(&mut random);
        batch.extend_from_slice(event(&mut random, shape).as_bytes());
        batch.push(b'\n');
    }
    batch
}

/// Nanoseconds an event.
fn time(round: impl FnOnce()) -> f64 {
    let start = Instant::now();
    round();
    start.elapsed().as_secs_f64() * 1e9 / EVENTS as f64
}

/// Rounds of both in turn, so that a busy machine is as unfair to one as to the other; the fastest of each counts.
fn measure(name: &str, mut batch: Vec<u8>) {
    let len = batch.len();
    batch.resize(len + PADDING_BYTES, 0);
    let paths: Vec<Vec<String>> = PATHS.iter().map(|path| path.split('.').map(String::from).collect()).collect();
    let mut decoder = Decoder::new(&paths, 65536);
    let mut rows = Rows::default();
    let (mut ours, mut sonic) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        let mut found = 0;
        ours = ours.min(time(|| {
            let (mut at, mut line) = (0, 0);
            while at < len {
                decoder.decode(&batch, len, &mut at, &mut line, ROWS_MAX, &mut rows);
                found += rows.len;
                black_box(&rows);
            }
        }));
        assert_eq!(found, EVENTS);
        assert!(rows.column(8).iter().all(|amount| amount.kind() == Kind::Number));
        sonic = sonic.min(time(|| {
            for line in batch[..len - 1].split(|byte| *byte == b'\n') {
                black_box(sonic_rs::from_slice::<Event>(line).expect("an event"));
            }
        }));
    }
    println!(
        "{name}: {} bytes an event; decoder {ours:.0} ns, sonic-rs typed {sonic:.0} ns, {:.1} times",
        len / EVENTS,
        sonic / ours
    );
}

fn main() {
    measure("one shape", batch(|_| 0));
    measure("seven shapes", batch(|random| random.below(7)));
}
