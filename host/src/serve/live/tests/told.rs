//! Nobody waits for what others are told: points taken back, who is woken when, and topics that fail.

use futures_util::FutureExt as _;

use super::*;
use crate::engine::arith::Arith;

#[test]
fn points_that_are_no_more_are_taken_back() {
    let host = Host::new();
    let t = |minutes: Millis| NOON + minutes * MINUTE_MS;
    [-59, -56].iter().for_each(|minutes| host.add(t(*minutes), "x", "US"));
    host.refresh(t(0) + 20 * SECOND_MS);
    let mut client = Client::new(&host, t(0) + 20 * SECOND_MS);
    let snapshot = client.say(subscribe("a", "events", &[])).remove(0);
    let first: Vec<_> = snapshot["series"][0]["points"].as_array().unwrap()[..4].to_vec();
    assert_eq!(first, [json!([t(-59), 1]), json!([t(-58), 0]), json!([t(-57), 0]), json!([t(-56), 1])]);
    // The event that the zeros follow leaves the range: from the range's first point on, there are none.
    host.refresh(t(1) + 20 * SECOND_MS);
    let taken = json!([[0, t(0), 0], [0, t(-58), null], [0, t(-57), null]]);
    assert_eq!(client.frames().remove(0)["points"], taken);
    // Who comes back is told the same, but for what has left the range since; a late event brings one back.
    let mut again = snapshot.clone();
    (again["op"], again["metric"], again["range"]) = (json!("resume"), json!("events"), json!("1h"));
    ["revision", "step_ms", "series", "provisional_from"].iter().for_each(|name| {
        again.as_object_mut().unwrap().remove(*name);
    });
    let mut back = Client::new(&host, t(1) + 20 * SECOND_MS);
    assert_eq!(back.say(again.clone()).remove(0)["points"], taken);
    host.add(t(-57), "x", "US");
    host.refresh(t(2) + 20 * SECOND_MS);
    assert_eq!(client.frames().remove(0)["points"], json!([[0, t(-57), 1], [0, t(1), 0]]));
    let mut back = Client::new(&host, t(2) + 20 * SECOND_MS);
    assert_eq!(back.say(again).remove(0)["points"], json!([[0, t(-57), 1], [0, t(0), 0], [0, t(1), 0]]));
}

#[test]
fn whoever_brings_a_topic_up_to_date_tells_all_who_listen() {
    let host = Host::new();
    host.add(NOON, "x", "US");
    let mut client = Client::new(&host, NOON);
    let new = client.session.receive(&subscribe("a", "low", &[]).to_string()).expect("a topic that is new");
    // The refresh of all comes first, and then the one that this client had asked for.
    host.refresh(NOON);
    assert_eq!(client.frames()[0]["op"], "snapshot");
    let woken = |client: &Client| client.session.wake.notified().now_or_never().is_some();
    assert!(woken(&client) && !woken(&client));
    host.world.add([Event { at: NOON, text: ["x", "US", "mobile"], amount: Some(3.0), user: 1 }]);
    host.live.refresh_topic(&new, NOON);
    assert!(woken(&client), "nothing may change after it");
    assert_eq!(client.frames()[0]["points"], json!([[0, NOON, 3]]));
    // Who has left is not woken any more.
    client.say(json!({"op": "unsubscribe", "id": "a"}));
    host.add(NOON, "x", "US");
    host.live.refresh_topic(&new, NOON);
    assert!(!woken(&client));
}

#[test]
fn a_topic_that_failed_stays_so() {
    let host = Host::new();
    host.add(NOON, "x", "US");
    let mut slow = Client::new(&host, NOON);
    slow.say(subscribe("a", "low", &[]));
    let rename = |from: &'static str, to: &'static str| {
        host.change(|definitions| {
            definitions.metrics.iter_mut().filter(|m| m.name == from).for_each(|m| m.name = to.into());
        });
        host.live.definitions_changed(NOON + SECOND_MS);
    };
    rename("low", "lowest");
    rename("lowest", "low");
    let codes: Vec<_> = slow.frames().iter().filter_map(|frame| frame["code"].as_str().map(str::to_owned)).collect();
    assert_eq!(codes, ["metric_removed"], "it does not sit on a topic that begins anew behind its back");
    assert_eq!(slow.say(subscribe("a", "low", &[]))[0]["op"], "snapshot");
}

#[test]
fn one_that_cannot_be_computed_costs_nobody_else() {
    let host = Host::new();
    host.add(NOON, "x", "US");
    let mut client = Client::new(&host, NOON);
    for metric in ["low", "events", "mean", "high"] {
        client.say(subscribe(metric, metric, &[]));
    }
    host.change(|definitions| {
        // An index of no column.
        if let MetricKind::Aggregate { finish, .. } = &mut definitions.metrics[0].kind {
            *finish = Arith::Leaf(99);
        }
    });
    host.add(NOON, "x", "US");
    host.live.definitions_changed(NOON + SECOND_MS);
    let frames = client.frames();
    let of = |id: &str| frames.iter().find(|frame| frame["id"] == id).map(|frame| frame["op"].as_str().unwrap());
    let told = |frame: &Value| (frame["id"].as_str().map(str::to_owned), frame["code"].as_str().map(str::to_owned));
    assert!(frames.iter().map(told).any(|told| told == (Some("events".into()), Some("internal".into()))), "{frames:?}");
    assert_eq!((of("low"), of("mean")), (None, None), "their numbers are as they were: {frames:?}");
    host.world.add([Event { at: NOON, text: ["x", "US", "mobile"], amount: Some(3.0), user: 1 }]);
    host.refresh(NOON + 2 * SECOND_MS);
    assert_eq!(client.frames().len(), 2, "low and mean have changed");
}
