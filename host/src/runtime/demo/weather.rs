//! What goes wrong, or unusually well, every few hours. Knows when and what; not how visitors take it.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::time::{HOUR_MS, MINUTE_MS, Millis};

/// A stretch of time that has at most one incident.
const BLOCK_MS: Millis = 3 * HOUR_MS;
const CHANCE: f64 = 0.75;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incident {
    /// Most purchases end in an error.
    PaymentsDown,
    /// A part of the pages answers with an error.
    ErrorBurst,
    /// Everything takes several times as long.
    Slow,
    /// Far more is bought, and dearer.
    FlashSale,
    /// Nobody from the largest market gets through.
    MarketCutOff,
}

const KINDS: [Incident; 5] =
    [Incident::PaymentsDown, Incident::ErrorBurst, Incident::FlashSale, Incident::Slow, Incident::MarketCutOff];

/// The incident that holds at a time. Lasts 6 to 14 minutes, and never touches the border of its block.
pub fn incident(seed: u64, at: Millis) -> Option<Incident> {
    let block = at.div_euclid(BLOCK_MS);
    let rng = &mut SmallRng::seed_from_u64(seed ^ (block as u64).wrapping_mul(0xd6e8_feb8_6659_fd93));
    if !rng.random_bool(CHANCE) {
        return None;
    }
    let length = rng.random_range(6..=14) * MINUTE_MS;
    let start = block * BLOCK_MS + rng.random_range(MINUTE_MS..BLOCK_MS - length - MINUTE_MS);
    // In turn, so that a day shows every kind.
    let kind = KINDS[block.rem_euclid(KINDS.len() as i64) as usize];
    (start..start + length).contains(&at).then_some(kind)
}
