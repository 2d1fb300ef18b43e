//! Events of a shop, as the example's definitions measure them, each of the wanted length. Made up from a seed.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::runtime::demo::people;
use crate::time::Millis;

const USERS: u32 = 100_000;
const CATEGORIES: u32 = 50;
/// Of a hundred: views, additions to the cart, purchases; the rest are errors.
const VIEWS: u32 = 80;
const CARTS: u32 = 90;
const PURCHASES: u32 = 96;
/// What stands around the filling.
const FILLING: &str = r#","trace":""}"#;

pub struct Events {
    random: SmallRng,
    /// Of this run: ids of two runs are not the same.
    run: u64,
    made: u64,
    /// Of each user, in turn.
    addresses: Vec<Ipv4Addr>,
    agents: Vec<&'static str>,
    bytes: usize,
}

impl Events {
    /// `bytes`: of an event; those that need more have more.
    pub fn new(run: u64, bytes: usize) -> Self {
        let mut random = SmallRng::seed_from_u64(run);
        let addresses = people::countries().map(|country| country.address(&mut random)).collect();
        let agents = people::browsers().map(|(_, agent)| agent).collect();
        Self { random, run, made: 0, addresses, agents, bytes }
    }

    /// Lines of events that happen now.
    pub fn lines(&mut self, count: usize, now: Millis) -> String {
        let mut out = String::with_capacity(count * (self.bytes + 1));
        for _ in 0..count {
            self.line(now, &mut out);
        }
        out
    }

    fn line(&mut self, now: Millis, out: &mut String) {
        let start = out.len();
        let random = &mut self.random;
        let user = random.random_range(0..USERS);
        let kind = match random.random_range(0..100) {
            drawn if drawn < VIEWS => "page_view",
            drawn if drawn < CARTS => "add_to_cart",
            drawn if drawn < PURCHASES => "purchase",
            _ => "error",
        };
        let (category, page) = (random.random_range(0..CATEGORIES), random.random_range(0..1_000));
        let (cents, ms) = (random.random_range(100..30_000), random.random_range(5..2_000));
        let (run, id) = (self.run, self.made);
        let address = self.addresses[user as usize % self.addresses.len()];
        let agent = self.agents[user as usize % self.agents.len()];
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            r#"{{"ts":{now},"type":"{kind}","id":"{run:x}-{id:x}","user_id":"u-{user}","url":"https://shop.example/c{category}/{page}","ip":"{address}","user_agent":"{agent}","props":{{"category":"category {category}","amount":{}.{:02},"ms":{ms}}}"#,
            cents / 100,
            cents % 100,
        );
        self.made += 1;
        let filling = self.bytes.saturating_sub(out.len() - start + FILLING.len());
        let (before, after) = FILLING.split_at(FILLING.len() - 2);
        out.push_str(before);
        out.extend(std::iter::repeat_n('.', filling));
        out.push_str(after);
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_json_of_the_wanted_length() {
        let mut events = Events::new(1, 500);
        let lines = events.lines(200, 1_700_000_000_000) + &events.lines(1, 1_700_000_000_000);
        let mut ids = std::collections::HashSet::new();
        for line in lines.lines() {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(line.len() >= 500 && (line.len() == 500 || event["trace"] == ""), "{line}");
            assert!(event["props"]["amount"].is_f64() && event["type"].is_string(), "{line}");
            ids.insert(event["id"].to_string());
        }
        assert_eq!(ids.len(), 201);
    }
}
