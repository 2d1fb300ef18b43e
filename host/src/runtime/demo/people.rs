//! Who visits the shop: people with a country, an address, a browser and a day of their own. Knows nothing of what they do there.
//!
//! A person is a number: everything about them follows from it, so that nobody has to be remembered.

use std::net::Ipv4Addr;
use std::sync::LazyLock;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::time::{HOUR_MS, Millis};

/// Countries by their share of the shop's visitors, with their hours from UTC. The others share what `OTHERS_WEIGHT` gives each.
const MARKETS: &[(&str, u32, i64)] = &[
    ("US", 2600, -6),
    ("DE", 900, 1),
    ("GB", 850, 0),
    ("FR", 550, 1),
    ("CA", 420, -5),
    ("JP", 400, 9),
    ("BR", 360, -3),
    ("IN", 340, 5),
    ("AU", 300, 10),
    ("NL", 280, 1),
    ("ES", 260, 1),
    ("IT", 260, 1),
    ("PL", 220, 1),
    ("SE", 180, 1),
    ("MX", 170, -6),
    ("CH", 160, 1),
    ("AT", 140, 1),
    ("BE", 130, 1),
    ("KR", 130, 9),
    ("DK", 100, 1),
    ("NO", 100, 1),
    ("FI", 80, 2),
    ("PT", 80, 0),
    ("IE", 80, 0),
    ("CZ", 70, 1),
    ("TR", 70, 3),
    ("SG", 60, 8),
    ("AR", 60, -3),
    ("ZA", 50, 2),
    ("NZ", 50, 12),
];
const OTHERS_WEIGHT: u32 = 2;
/// How far traffic swings around its mean over a day.
const SWING: f64 = 0.6;
/// Local hour with the most visitors.
const BUSIEST_HOUR: f64 = 20.0;

/// Browsers of the demo, from the most used on; the file has more for benchmarks.
const BROWSERS: usize = 120;

pub struct Country {
    pub code: &'static str,
    offset_ms: Millis,
    /// First address and size of each range.
    ranges: Vec<(u32, u32)>,
}

impl Country {
    /// A random address of the country.
    pub fn address(&self, rng: &mut SmallRng) -> Ipv4Addr {
        let (first, size) = self.ranges[rng.random_range(0..self.ranges.len())];
        Ipv4Addr::from_bits(first + 1 + rng.random_range(0..size - 2))
    }

    /// How busy the country is at a time: 1 at its best hour, never 0.
    pub fn rhythm(&self, at: Millis) -> f64 {
        let hour = ((at + self.offset_ms) as f64 / HOUR_MS as f64) % 24.0;
        let angle = (hour - BUSIEST_HOUR) / 24.0 * std::f64::consts::TAU;
        (1.0 + SWING * angle.cos()) / (1.0 + SWING)
    }
}

/// The mean of `Country::rhythm` over a day.
pub const MEAN_RHYTHM: f64 = 1.0 / (1.0 + SWING);

/// Browsers with their weights, most used first.
pub fn browsers() -> impl Iterator<Item = (u32, &'static str)> {
    lines(include_str!("data/user_agents.txt")).filter_map(|(weight, agent)| Some((weight.parse().ok()?, agent)))
}

/// Every country with some of its addresses, by code.
pub fn countries() -> impl Iterator<Item = Country> {
    lines(include_str!("data/addresses.txt")).map(|(code, ranges)| Country {
        code,
        offset_ms: MARKETS.iter().find(|market| market.0 == code).map_or(0, |market| market.2 * HOUR_MS),
        ranges: ranges.split(' ').filter_map(range).collect(),
    })
}

fn lines(file: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    file.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '))
}

fn range(text: &str) -> Option<(u32, u32)> {
    let (address, bits) = text.split_once('/')?;
    let address: Ipv4Addr = address.parse().ok()?;
    Some((address.to_bits(), 1 << (32 - bits.parse::<u32>().ok()?)))
}

struct World {
    countries: Vec<Country>,
    /// Running sums of the weights.
    country_sums: Vec<u32>,
    browsers: Vec<&'static str>,
    browser_sums: Vec<u32>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let countries: Vec<Country> = countries().collect();
    let weight = |code| MARKETS.iter().find(|market| market.0 == code).map_or(OTHERS_WEIGHT, |market| market.1);
    let country_sums = running_sums(countries.iter().map(|country| weight(country.code)));
    let (weights, browsers): (Vec<u32>, Vec<&str>) = browsers().take(BROWSERS).unzip();
    World { countries, country_sums, browsers, browser_sums: running_sums(weights.into_iter()) }
});

fn running_sums(weights: impl Iterator<Item = u32>) -> Vec<u32> {
    weights
        .scan(0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        })
        .collect()
}

/// An index, as often as its weight says.
fn weighted(sums: &[u32], rng: &mut SmallRng) -> usize {
    let drawn = rng.random_range(0..sums[sums.len() - 1]);
    sums.partition_point(|sum| *sum <= drawn)
}

pub struct Person {
    pub number: u64,
    pub country: &'static Country,
    pub address: Ipv4Addr,
    pub browser: &'static str,
}

impl Person {
    pub fn new(seed: u64, number: u64) -> Self {
        let rng = &mut SmallRng::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let world = &*WORLD;
        let country = &world.countries[weighted(&world.country_sums, rng)];
        let address = country.address(rng);
        Self { number, country, address, browser: world.browsers[weighted(&world.browser_sums, rng)] }
    }
}
