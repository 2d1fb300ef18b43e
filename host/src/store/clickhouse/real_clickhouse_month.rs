//! Measured on the real engine: thirty days of hourly revenue, as the host reads them and as anybody's SQL does. Prints what
//! it took: `cargo test --release -p tidemark --lib -- real_clickhouse_month --nocapture`.

use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidemark_services::{Kind, Service};

use super::*;
use crate::store::cells::{Cells, Column, Pane};
use crate::store::memory::MemoryStore;
use crate::store::pane::{Meaning, encode};
use crate::store::reader::JoinedReader;
use crate::store::table::Combinations;
use crate::store::{HistoryStore, PaneRecord, ReadRequest, Resolution, StateColumn, StateReader};
use crate::time::Clock;

const HOURS: u32 = 30 * 24;
/// Countries, devices, categories: 2,000 combinations an hour, with some 35 raw events in each.
const VALUES: [u32; 3] = [20, 4, 25];
const RAW_ROWS: f64 = 50e6;
const TRIES: usize = 7;
/// Wanted is half a second. This is for machines that do other things besides.
const SECONDS_MAX: f64 = 2.0;

/// One hour of revenue in every combination.
fn pane(random: &mut StdRng, names: &Arc<Names>, start: Minute) -> (PaneRecord, f64) {
    let texts: Vec<Vec<Arc<str>>> =
        VALUES.iter().map(|count| (0..*count).map(|value| format!("value {value}").into()).collect()).collect();
    let mut full = Combinations::new(3);
    for number in 0..VALUES.iter().product::<u32>() {
        full.push(&[number % VALUES[0], number / VALUES[0] % VALUES[1], number / VALUES[0] / VALUES[1]]);
    }
    let each = RAW_ROWS / f64::from(HOURS) / full.len() as f64;
    let amounts: Vec<f64> =
        (0..full.len()).map(|_| (random.random_range(0.0..2.0) * each * 4000.0).round() / 100.0).collect();
    let total = amounts.iter().sum();
    let cells = Cells { rows: (0..full.len() as u32).collect(), columns: vec![Column::Sum(amounts)] };
    let pane = Pane { full: cells, margins: Cells::new(&[StateKind::Sum]) };
    let texts: Vec<&[Arc<str>]> = texts.iter().map(Vec::as_slice).collect();
    let margins = Combinations::new(3);
    let bytes =
        encode(Meaning { kinds: &[StateKind::Sum], texts: &texts, full: &full, margins: &margins }, &pane).unwrap();
    let resolution = Resolution::Hour;
    (PaneRecord { names: names.clone(), fingerprint: Fingerprint(7), resolution, start, version: 1, bytes }, total)
}

/// Seconds of the median try.
fn timed(what: &str, mut act: impl FnMut()) -> f64 {
    let mut seconds: Vec<f64> = (0..TRIES)
        .map(|_| {
            let started = Instant::now();
            act();
            started.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    println!(
        "{what}: {:.0} ms (median of {TRIES}; {:.0} to {:.0})",
        seconds[TRIES / 2] * 1e3,
        seconds[0] * 1e3,
        seconds[TRIES - 1] * 1e3
    );
    seconds[TRIES / 2]
}

#[test]
fn thirty_days_of_hourly_revenue() {
    let service = Service::start(Kind::ClickHouse).unwrap();
    let address = Address::parse(&format!("http://{}/month", service.address())).unwrap();
    let store = Arc::new(ClickHouse::new(&address).unwrap());
    let names = ["country", "device", "category"].map(Arc::from).into();
    let names = Arc::new(Names { metric: "revenue".into(), dimensions: names });
    let end = Minute::of(Clock::System.now()).hour();
    let first = end.0 - HOURS * 60;
    let random = &mut StdRng::seed_from_u64(1);
    let started = Instant::now();
    let mut totals = Vec::new();
    // As a host writes them, some hours at once.
    for hours in (0..HOURS).collect::<Vec<_>>().chunks(24) {
        let panes = hours.iter().map(|hour| pane(random, &names, Minute(first + hour * 60)));
        let (panes, sums): (Vec<_>, Vec<f64>) = panes.unzip();
        store.write(&panes).unwrap();
        totals.extend(sums);
    }
    println!("{HOURS} hours of 2,000 combinations written in {:.1} s", started.elapsed().as_secs_f64());
    let reader = JoinedReader::new(Arc::new(MemoryStore::whole_from(end)), Some(store.clone()));
    let mut request = ReadRequest {
        fingerprints: vec![Fingerprint(7)],
        kinds: vec![StateKind::Sum],
        margins: false,
        dimensions: 3,
        by: vec![],
        filters: vec![],
        resolution: Resolution::Hour,
        ranges: vec![Minute(first)..end],
    };
    let total = timed("as the host reads the total", || {
        let answer = reader.read(&request).unwrap();
        let StateColumn::Sum(sums) = &answer.series[0].states[0] else { panic!("a sum") };
        assert!(sums.len() == totals.len() && sums.iter().zip(&totals).all(|(a, b)| (a - b).abs() <= 1e-9 * b));
    });
    request.by = vec![0];
    let by_country = timed("as the host reads it by country", || {
        assert_eq!(reader.read(&request).unwrap().series.len(), VALUES[0] as usize);
    });
    let sql = "SELECT start, sum(sum) FROM month.hours FINAL WHERE metric = 'revenue' AND part = '' GROUP BY start ORDER BY start";
    let by_sql = timed("as SQL", || {
        assert_eq!(store.connection.fetch_all(sql).unwrap().len(), HOURS as usize * 12);
    });
    for seconds in [total, by_country, by_sql] {
        assert!(seconds < SECONDS_MAX, "{seconds} s");
    }
}
