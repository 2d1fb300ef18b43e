use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::*;
use crate::time::{DAY_MS, MINUTE_MS, SECOND_MS};

const START: Millis = 1_772_409_600_000;

fn events(batch: &Batch) -> Vec<Value> {
    batch.lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_same_time_gives_the_same_events_however_it_is_cut() {
    let whole = Demo::new(7, 200.0).batch(START, START + 10 * SECOND_MS);
    let mut demo = Demo::new(7, 200.0);
    let mut parts = String::new();
    for second in 0..10 {
        parts += &demo.batch(START + second * SECOND_MS, START + (second + 1) * SECOND_MS).lines;
        if second == 4 {
            demo = Demo::new(7, 200.0);
        }
    }
    assert!(whole.events > 1_000);
    assert_eq!(whole.lines, parts);
    assert_eq!(whole.events, whole.lines.lines().count());
    assert_ne!(whole.lines, Demo::new(8, 200.0).batch(START, START + 10 * SECOND_MS).lines);
}

#[test]
fn a_day_has_the_rate_asked_for_a_rhythm_and_a_funnel() {
    let mut demo = Demo::new(1, 4.0);
    let mut types: HashMap<String, u64> = HashMap::new();
    let mut ids = HashSet::new();
    let (mut bytes, mut total, mut hours) = (0, 0, Vec::new());
    for hour in 0..24 {
        let batch = demo.batch(START + hour * HOUR_MS, START + (hour + 1) * HOUR_MS);
        let mut last = START + hour * HOUR_MS;
        for event in events(&batch) {
            *types.entry(event["type"].as_str().unwrap().to_owned()).or_default() += 1;
            assert!(ids.insert(event["id"].as_str().unwrap().to_owned()), "twice: {event}");
            let ts = event["ts"].as_i64().unwrap();
            assert!(ts >= last && ts < batch.arrival, "{event}");
            last = ts;
            for field in ["user_id", "url", "ip", "user_agent"] {
                assert!(event[field].is_string(), "{event}");
            }
        }
        bytes += batch.lines.len();
        total += batch.events;
        hours.push(batch.events);
    }
    let rate = total as f64 / 86_400.0;
    assert!((3.8..4.2).contains(&rate), "{rate} events a second: EVENTS_A_VISIT is off by {}", rate / 4.0);
    assert!((350..500).contains(&(bytes / total)), "{} bytes an event", bytes / total);
    let (low, high) = (hours.iter().min().unwrap(), hours.iter().max().unwrap());
    assert!(high * 10 > low * 15, "no rhythm: {hours:?}");
    let share = |kind: &str| types[kind] as f64 / total as f64;
    assert!(share("page_view") > 0.6, "{types:?}");
    assert!(share("purchase") > 0.008 && share("purchase") < share("add_to_cart"), "{types:?}");
    assert!(share("error") > 0.005 && share("error") < 0.05, "{types:?}");
}

#[test]
fn people_stay_who_they_are() {
    let batch = Demo::new(3, 500.0).batch(START, START + MINUTE_MS);
    let mut seen: HashMap<String, (String, String)> = HashMap::new();
    let mut again = 0;
    for event in events(&batch) {
        let text = |field: &str| event[field].as_str().unwrap().to_owned();
        let who = (text("ip"), text("user_agent"));
        if let Some(before) = seen.insert(text("user_id"), who.clone()) {
            again += 1;
            assert_eq!(before, who);
        }
    }
    assert!(again > 100);
}

#[test]
fn incidents_come_and_go() {
    let mut kinds = HashSet::new();
    let mut minutes = 0;
    for minute in 0..10 * 1440 {
        if let Some(incident) = weather::incident(5, START + minute * MINUTE_MS) {
            kinds.insert(format!("{incident:?}"));
            minutes += 1;
        }
    }
    assert_eq!(kinds.len(), 5);
    assert!((300..1000).contains(&minutes), "{minutes} minutes of ten days");
}

#[test]
fn a_second_start_fills_only_the_gap() {
    let now = START + DAY_MS + 57;
    assert_eq!(fill_range(None, now), START + DAY_MS - FILL_MS..START + DAY_MS);
    assert_eq!(fill_range(Some(START + 5), now), START..START + DAY_MS);
    assert_eq!(fill_range(Some(now + HOUR_MS), now), START + DAY_MS..START + DAY_MS);
    assert_eq!(fill_range(Some(0), now), START + DAY_MS - FILL_MS..START + DAY_MS);
}
