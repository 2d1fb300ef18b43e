//! The routes over a fake store: shapes, keys, mistakes.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::query::fake::{Event, World};
use super::*;
use crate::time::{HOUR_MS, MINUTE_MS};

/// Half a minute past noon of a Monday.
const NOW: Millis = 1_704_110_430_000;
const MINUTE: Millis = NOW - 30_000;

struct FakeHost(Result<(), String>);

impl Host for FakeHost {
    fn plugins(&self) -> Vec<PluginStatus> {
        vec![PluginStatus { name: "geo_ip".into(), state: "quarantined".into(), calls: 7, ..PluginStatus::default() }]
    }

    fn status(&self) -> HostStatus {
        HostStatus { started_at: NOW - HOUR_MS, events_total: 12, ..HostStatus::default() }
    }

    fn ready(&self) -> Result<(), String> {
        self.0.clone()
    }
}

pub fn services(world: Arc<World>, settings: Settings) -> Arc<Services> {
    let active = Arc::new(ArcSwap::from_pointee(world.active.clone()));
    let host = Arc::new(FakeHost(Ok(())));
    Services::new(world, active, host, Arc::default(), Clock::manual(NOW), settings, Arc::default())
}

fn world() -> Arc<World> {
    let world = World::new();
    let event = |at: Millis, kind, country| Event { at, text: [kind, country, "mobile"], amount: Some(2.5), user: 1 };
    world.add([
        event(MINUTE - 3 * MINUTE_MS, "purchase", "US"),
        event(MINUTE - MINUTE_MS, "error", "DE"),
        event(MINUTE - MINUTE_MS, "purchase", "a,b"),
        event(MINUTE, "purchase", "US"),
    ]);
    world.close_until(MINUTE);
    Arc::new(world)
}

fn get(services: &Arc<Services>, path: &str) -> (u16, HeaderMap, String) {
    send(services, Request::get(path).body(Body::empty()).unwrap())
}

fn send(services: &Arc<Services>, request: Request<Body>) -> (u16, HeaderMap, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let response = router(services.clone(), Router::new(), true).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status.as_u16(), parts.headers, String::from_utf8(body.to_vec()).unwrap())
    })
}

fn get_json(services: &Arc<Services>, path: &str) -> (u16, Value) {
    let (status, headers, body) = get(services, path);
    assert_eq!(headers["content-type"], "application/json", "{path}");
    (status, serde_json::from_str(&body).unwrap())
}

#[test]
fn a_query_has_the_shape_of_the_contract() {
    let services = services(world(), Settings::default());
    let t = |minutes: Millis| MINUTE + minutes * MINUTE_MS;
    let (status, answer) = get_json(&services, "/v1/query?metric=events&by=country&country=US,a%2Cb&from=-4m");
    assert_eq!(status, 200);
    let series =
        |country: &str, points: Value| json!({"labels": {"country": country}, "points": points, "anomalies": []});
    let expected = json!({
        "metric": "events", "unit": null, "step_ms": 60_000, "from": t(-4), "to": t(1), "revision": 3,
        "series": [
            series("US", json!([[t(-3), 1], [t(-2), 0], [t(-1), 0], [t(0), 1]])),
            series("a,b", json!([[t(-1), 1]])),
        ],
        "provisional_from": t(0),
    });
    assert_eq!(answer, expected);
    let (_, answer) = get_json(&services, "/v1/query?metric=mean&from=-4m&to=now");
    assert_eq!(
        answer["series"],
        json!([{"labels": {}, "points": [[t(-3), 2.5], [t(-2), 2.5], [t(-1), 2.5]], "anomalies": []}])
    );
    assert_eq!(answer["provisional_from"], json!(null));
    let (_, answer) = get_json(&services, "/v1/query?metric=events&country=nowhere");
    assert_eq!(answer["series"], json!([]));
    let (_, answer) = get_json(&services, "/v1/query?metric=events&from=-3h&to=-2h");
    assert_eq!(answer["series"], json!([{"labels": {}, "points": [], "anomalies": []}]));
}

#[test]
fn mistakes_are_answered_in_one_shape() {
    let services = services(world(), Settings::default());
    let cases = [
        ("/v1/query?metric=evnts", 404, "unknown_metric"),
        ("/v1/query", 400, "missing_metric"),
        ("/v1/query?metric=events&contry=US", 400, "unknown_dimension"),
        ("/v1/query?metric=users&by=device", 400, "unknown_dimension"),
        ("/v1/query?metric=events&step=90s", 400, "invalid_step"),
        ("/v1/query?metric=events&from=-9d", 400, "step_too_small"),
        ("/v1/dimensions/contry", 404, "unknown_dimension"),
        ("/v1/rejects?limit=x", 400, "invalid_limit"),
        ("/v1/nothing", 404, "not_found"),
        ("/assets/../x", 404, "not_found"),
    ];
    for (path, status, code) in cases {
        let (actual, answer) = get_json(&services, path);
        assert_eq!((actual, answer["error"]["code"].as_str()), (status, Some(code)), "{path}");
        for part in ["message", "help"] {
            assert!(answer["error"][part].as_str().is_some_and(|text| !text.is_empty()), "{path} {part}");
        }
    }
    let (status, headers, body) = send(&services, Request::post("/v1/query").body(Body::empty()).unwrap());
    assert_eq!((status, headers["allow"].to_str().unwrap()), (405, "GET,HEAD"));
    assert!(body.contains("method_not_allowed"));
}

#[test]
fn more_than_two_million_points_are_refused() {
    let world = World::new();
    const NAMES: usize = 60;
    let names: Vec<&'static str> = (0..NAMES).map(|n| &*format!("c{n}").leak()).collect();
    let event = |country, device| Event { at: NOW - 24 * HOUR_MS, text: ["x", country, device], amount: None, user: 0 };
    world.add((0..1_440).map(|n| event(names[n % NAMES], names[n / NAMES])));
    world.close_until(NOW);
    let services = services(Arc::new(world), Settings::default());
    let (status, _) = get_json(&services, "/v1/query?metric=events&by=country,device&from=-24h&to=now");
    assert_eq!(status, 400, "1440 series of 1440 points are too many");
    let (status, _) = get_json(&services, "/v1/query?metric=events&by=country,device&from=-24h&to=-10h");
    assert_eq!(status, 200);
}

#[test]
fn resources_have_their_shapes() {
    let services = services(world(), Settings { refresh_ms: 10_000, ..Settings::default() });
    services.rejects.push(5, "http", "no object", b"x\xff");
    let (_, metrics) = get_json(&services, "/v1/metrics");
    assert_eq!(metrics["headline"], json!(["events"]));
    assert_eq!(metrics["dimensions"][1], json!({"name": "device", "limit": null}));
    let revenue = json!({
        "name": "revenue", "title": "revenue", "unit": null, "better": null, "kind": "aggregate", "expression": "revenue",
        "window_ms": 3_600_000, "per_ms": null, "dimensions": ["country", "device"], "estimate": false,
        "value": "number", "steps": null, "span_ms": null, "zero_fill": true, "state": "live", "complete_from": null,
        "anomalies": null, "changes": [],
    });
    assert_eq!(metrics["metrics"][2], revenue);
    assert_eq!(metrics["metrics"][10]["window_ms"], 3_600_000, "the longest of its parts");
    let cases = [
        ("/v1/dimensions/country?limit=1", json!({"name": "country", "values": [{"value": "US", "count": 2}]})),
        (
            "/v1/rejects?limit=5",
            json!({"total": 1, "rejects": [{"at": 5, "source": "http", "reason": "no object", "event": "x\u{fffd}"}]}),
        ),
        ("/health/live", json!({"status": "live"})),
        ("/health/ready", json!({"status": "ready"})),
        (
            "/v1/definitions",
            json!({"revision": 3, "digest": "d1", "applied_at": 1, "last": {
            "added": [], "changed": [], "removed": [], "unchanged": [], "diagnostics": [], "outcome": "applied", "at": 1}}),
        ),
    ];
    for (path, expected) in cases {
        assert_eq!(get_json(&services, path), (200, expected), "{path}");
    }
    let (_, status) = get_json(&services, "/v1/status");
    assert_eq!((&status["events_total"], &status["seq"], &status["ready"]), (&json!(12), &json!(1), &json!(true)));
    let (_, plugins) = get_json(&services, "/v1/plugins");
    assert_eq!(plugins["plugins"][0]["state"], "quarantined");
    let (_, headers, text) = get(&services, "/metrics");
    assert!(headers["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    assert!(text.contains("tidemark_plugin_quarantined{plugin=\"geo_ip\"} 1"));
}

#[test]
fn readers_need_a_key_where_there_are_keys() {
    let keys = Keys { read: vec!["r".into()], write: vec!["w".into()] };
    let services = services(world(), Settings { keys, ..Settings::default() });
    let with = |path: &str, key: &str| {
        let request = Request::get(path).header("authorization", format!("Bearer {key}"));
        send(&services, request.body(Body::empty()).unwrap()).0
    };
    for path in ["/v1/metrics", "/v1/query?metric=events", "/metrics", "/v1/rejects", "/v1/status"] {
        assert_eq!((get(&services, path).0, with(path, "w"), with(path, "r")), (401, 401, 200), "{path}");
    }
    for path in ["/health/live", "/health/ready", "/"] {
        assert_eq!(get(&services, path).0, 200, "{path}");
    }
}

#[test]
fn readiness_says_what_is_wrong() {
    let world = world();
    let active = Arc::new(ArcSwap::from_pointee(world.active.clone()));
    let host = Arc::new(FakeHost(Err("the disk is full".into())));
    let services =
        Services::new(world, active, host, Arc::default(), Clock::manual(NOW), Settings::default(), Arc::default());
    let (status, answer) = get_json(&services, "/health/ready");
    assert_eq!((status, &answer["error"]["message"]), (503, &json!("the disk is full")));
}
