//! A visit to the shop, event by event: look around, put something into the cart, pay. Knows people and incidents; not how visits
//! are scheduled.

use std::fmt::Write;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::people::Person;
use super::weather::Incident;
use crate::time::Millis;

/// Events of a mean visit, measured (a test holds it): what turns a rate of events into one of visits.
pub const EVENTS_A_VISIT: f64 = 5.65;
/// A visit is over after this, whatever was meant to follow.
pub const VISIT_MS_MAX: Millis = 10 * 60_000;

struct Category {
    name: &'static str,
    /// Median price in USD.
    price: f64,
    products: &'static [&'static str],
}

const CATEGORIES: &[Category] = &[
    Category { name: "shoes", price: 79.0, products: &["Trail Runner 4", "City Sneaker", "Wanderschuh Größe 44"] },
    Category { name: "outdoor", price: 129.0, products: &["Two-Person Tent", "Headlamp 400", "Down Jacket"] },
    Category { name: "kitchen", price: 42.0, products: &["Crème Brûlée Set", "Chef's Knife 20 cm", "Moka Pot"] },
    Category {
        name: "books",
        price: 18.0,
        products: &["The Left Hand of Darkness", "Cien años de soledad", "吾輩は猫である"],
    },
    Category { name: "audio", price: 149.0, products: &["Studio Headphones", "Bluetooth Speaker 12\\\"", "Turntable"] },
    Category { name: "garden", price: 35.0, products: &["Pruning Shears", "Raised Bed", "Rain Barrel 200 l"] },
    Category { name: "toys", price: 27.0, products: &["Wooden Train", "Kite", "Puzzle 1,000 Pieces"] },
    Category { name: "bikes", price: 389.0, products: &["Gravel Bike 54", "Child Seat", "Floor Pump"] },
];

const REFERRERS: &[&str] = &[
    "https://www.google.com/",
    "https://www.google.com/",
    "https://www.bing.com/",
    "https://news.example/gift-guide",
    "https://social.example/feed?ref=share",
    "",
];

#[derive(Clone, Copy, PartialEq)]
enum Next {
    Look,
    Cart,
    Pay,
}

pub struct Visit {
    rng: SmallRng,
    ends: Millis,
    next: Next,
    looks_left: u32,
    category: &'static Category,
    product: usize,
    /// JSON members that stay the same in a visit: who, from where, with what.
    visitor: String,
    /// The page that the visitor comes from, once there is one of the shop's.
    previous: Option<String>,
}

impl Visit {
    pub fn new(person: &Person, at: Millis, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let visitor = format!(
            r#""user_id":"u-{}","session_id":"{:012x}","ip":"{}","user_agent":"{}""#,
            person.number,
            seed >> 16,
            person.address,
            person.browser
        );
        let category = &CATEGORIES[rng.random_range(0..CATEGORIES.len())];
        let looks_left = 1 + (rng.random::<f64>().powi(2) * 13.0) as u32;
        let product = rng.random_range(0..category.products.len());
        Self { rng, ends: at + VISIT_MS_MAX, next: Next::Look, looks_left, category, product, visitor, previous: None }
    }

    /// Writes what the visitor does now as a line of JSON; gives the time until they do something again.
    pub fn step(
        &mut self,
        at: Millis,
        id: (i64, usize),
        incident: Option<Incident>,
        out: &mut String,
    ) -> Option<Millis> {
        let kind = self.kind(incident);
        self.write(at, id, kind, incident, out);
        self.decide(kind, incident)?;
        // Quick clicks and long reads: a skewed pause around half a minute.
        let pause = 1_500 + (self.rng.random::<f64>().powi(3) * 110_000.0) as Millis;
        (at + pause < self.ends).then_some(pause)
    }

    fn kind(&mut self, incident: Option<Incident>) -> &'static str {
        let failing = match (incident, self.next) {
            (Some(Incident::PaymentsDown), Next::Pay) => 0.85,
            (Some(Incident::ErrorBurst), Next::Look) => 0.25,
            _ => 0.008,
        };
        if self.rng.random_bool(failing) {
            return "error";
        }
        match self.next {
            Next::Look if self.rng.random_bool(0.12) => "search",
            Next::Look => "page_view",
            Next::Cart => "add_to_cart",
            Next::Pay => "purchase",
        }
    }

    fn decide(&mut self, done: &'static str, incident: Option<Incident>) -> Option<()> {
        let (wanting, paying) = if incident == Some(Incident::FlashSale) { (0.25, 0.7) } else { (0.06, 0.4) };
        self.next = match done {
            "purchase" => return None,
            "add_to_cart" if self.rng.random_bool(paying) => Next::Pay,
            "page_view" if self.rng.random_bool(wanting) => Next::Cart,
            // Whom the payment failed tries again, most of the time.
            "error" if self.next == Next::Pay && self.rng.random_bool(0.7) => Next::Pay,
            _ => Next::Look,
        };
        if self.next == Next::Look {
            self.looks_left = self.looks_left.checked_sub(1)?;
            if self.rng.random_bool(0.3) {
                self.category = &CATEGORIES[self.rng.random_range(0..CATEGORIES.len())];
            }
            self.product = self.rng.random_range(0..self.category.products.len());
        }
        Some(())
    }

    fn write(
        &mut self,
        at: Millis,
        id: (i64, usize),
        kind: &'static str,
        incident: Option<Incident>,
        out: &mut String,
    ) {
        let category = self.category.name;
        let product = self.category.products[self.product];
        let page = match self.next {
            Next::Look => format!("https://shop.example/{category}/{}", self.product + 100),
            Next::Cart => "https://shop.example/cart".into(),
            Next::Pay => "https://shop.example/checkout/payment?step=confirm".into(),
        };
        let referrer = match &self.previous {
            Some(previous) => previous.as_str(),
            None => REFERRERS[self.rng.random_range(0..REFERRERS.len())],
        };
        let slow = if incident == Some(Incident::Slow) { 6.0 } else { 1.0 };
        let ms = (slow * (35.0 + self.rng.random::<f64>().powi(4) * 900.0)) as u32;
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            r#"{{"ts":{at},"type":"{kind}","id":"e-{:x}-{:x}",{},"url":"{page}","referrer":"{referrer}","props":{{"category":"{category}","product":"{product}","ms":{ms}"#,
            id.0, id.1, self.visitor
        );
        match kind {
            "purchase" | "add_to_cart" => {
                let items = 1 + (self.rng.random::<f64>().powi(4) * 4.0) as u32;
                let dear = if incident == Some(Incident::FlashSale) { 2.5 } else { 1.0 };
                let spread = 0.5 + self.rng.random::<f64>() * 1.2;
                let cents = (self.category.price * spread * dear * f64::from(items) * 100.0) as u64;
                let _ = write!(out, r#","amount":{}.{:02},"currency":"USD","items":{items}"#, cents / 100, cents % 100);
            }
            "error" if self.next == Next::Pay => out.push_str(r#","code":"payment_declined","status":402"#),
            "error" => out.push_str(r#","code":"upstream_timeout","status":504"#),
            _ => {}
        }
        out.push_str("}}\n");
        self.previous = Some(page);
    }
}
