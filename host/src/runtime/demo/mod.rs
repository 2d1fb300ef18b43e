//! Built-in traffic: a shop's visitors, made up from a seed and the time alone. Knows nothing of how events are taken in.
//!
//! Whatever is asked for a stretch of time is the same, whoever asked for what before: a second start goes on where the first one
//! stopped, as if it had never been away.

pub mod people;
mod shop;
mod weather;

use std::ops::Range;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

use crate::time::{HOUR_MS, Millis};
use people::Person;
use shop::Visit;
use weather::Incident;

/// Events per second in the mean of a day, unless asked otherwise: 49 hours of them are 7 million events.
pub const RATE_DEFAULT: f64 = 40.0;
/// How much history the first start makes up: yesterday whole, and the hour before it for windows.
pub const FILL_MS: Millis = 49 * HOUR_MS;
/// Time is cut into slices; what is asked for is rounded down to them.
pub const SLICE_MS: Millis = 100;

/// Events made only to know who is still there when a stretch begins.
const START_EVENTS_MAX: f64 = 500_000.0;

/// Slices that a visit can span.
const WHEEL: usize = (shop::VISIT_MS_MAX / SLICE_MS) as usize + 1;
const USERS_MIN: f64 = 50_000.0;
/// More traffic comes from more people, not from busier ones.
const USERS_PER_RATE: f64 = 500.0;
/// Few come again and again, most hardly ever.
const ZIPF_EXPONENT: f64 = 0.6;

/// Lines of JSON with the time at which they are to count as arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub lines: String,
    pub events: usize,
    pub arrival: Millis,
}

pub struct Demo {
    seed: u64,
    /// Events per second in the mean of a day.
    rate: f64,
    users: Zipf<f64>,
    /// The next slice to make.
    at: i64,
    /// Visits by the slice of their next event, modulo its length.
    wheel: Vec<Vec<Visit>>,
}

/// What is missing up to `now`, when the newest event that was made up arrived at `last`.
pub fn fill_range(last: Option<Millis>, now: Millis) -> Range<Millis> {
    let to = now - now.rem_euclid(SLICE_MS);
    let from = last.map_or(to - FILL_MS, |last| last.clamp(to - FILL_MS, to));
    from - from.rem_euclid(SLICE_MS)..to
}

impl Demo {
    /// `rate`: events per second in the mean of a day.
    pub fn new(seed: u64, rate: f64) -> Self {
        let rate = rate.max(0.1);
        let users = Zipf::new((rate * USERS_PER_RATE).max(USERS_MIN), ZIPF_EXPONENT).expect("constants in range");
        Self { seed, rate, users, at: i64::MIN, wheel: Vec::new() }
    }

    /// Events from `from` to before `to`, in the order of their time, arriving at `to`.
    pub fn batch(&mut self, from: Millis, to: Millis) -> Batch {
        let (from, to) = (from.div_euclid(SLICE_MS), to.div_euclid(SLICE_MS));
        let mut batch = Batch { lines: String::new(), events: 0, arrival: to * SLICE_MS };
        if self.at != from {
            self.start(from);
        }
        while self.at < to {
            batch.events += self.slice(&mut batch.lines);
        }
        batch
    }

    /// Goes to a slice: visits that began before it may still last, those from before the wheel's length are over.
    /// Past `START_EVENTS_MAX` the oldest of them are left out, so that a high rate starts at once too.
    fn start(&mut self, slice: i64) {
        let slices_max = START_EVENTS_MAX * 1_000.0 / SLICE_MS as f64 / self.rate;
        self.wheel.clear();
        self.wheel.resize_with(WHEEL, Vec::new);
        self.at = slice - (slices_max as i64).min(WHEEL as i64);
        let mut unwanted = String::new();
        while self.at < slice {
            self.slice(&mut unwanted);
            unwanted.clear();
        }
    }

    fn slice(&mut self, out: &mut String) -> usize {
        let start = self.at * SLICE_MS;
        let incident = weather::incident(self.seed, start);
        let place = self.at.rem_euclid(WHEEL as i64) as usize;
        let mut due = std::mem::take(&mut self.wheel[place]);
        self.arrive(start, incident, &mut due);
        let events = due.len();
        for (index, mut visit) in due.drain(..).enumerate() {
            let at = start + (index as i64 * SLICE_MS) / events as i64;
            if let Some(pause) = visit.step(at, (self.at, index), incident, out) {
                // At least the next slice, at most a whole turn from now.
                let slices = (pause / SLICE_MS).clamp(1, WHEEL as i64 - 1);
                let place = (self.at + slices).rem_euclid(WHEEL as i64) as usize;
                self.wheel[place].push(visit);
            }
        }
        self.wheel[place] = due;
        self.at += 1;
        events
    }

    /// New visitors of a slice.
    fn arrive(&self, start: Millis, incident: Option<Incident>, due: &mut Vec<Visit>) {
        let rng = &mut SmallRng::seed_from_u64(self.seed ^ (self.at as u64).wrapping_mul(0xa076_1d64_78bd_642f));
        let mean = self.rate * SLICE_MS as f64 / 1_000.0 / shop::EVENTS_A_VISIT / people::MEAN_RHYTHM;
        let candidates = (mean + rng.random::<f64>()) as usize;
        for _ in 0..candidates {
            let person = Person::new(self.seed, self.users.sample(rng) as u64);
            let seed = rng.random();
            let cut_off = incident == Some(Incident::MarketCutOff) && person.country.code == "US";
            if !cut_off && rng.random_bool(person.country.rhythm(start)) {
                due.push(Visit::new(&person, start, seed));
            }
        }
    }
}

#[cfg(test)]
mod tests;
