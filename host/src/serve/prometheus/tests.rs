//! The API over a fake store: what expressions give, that answers equal those of `/v1/query`, shapes, mistakes, keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::serve::query::fake::{Event, World};
use crate::serve::tests::services;
use crate::serve::{Services, Settings, router};
use crate::time::{MINUTE_MS, Millis};
use crate::web::Keys;

/// By series.
type Points<'a> = &'a [(&'a str, &'a str)];

/// Half a minute past noon of a Monday; closed until noon.
const NOW: Millis = 1_704_110_430_000;
const NOON: Millis = NOW - 30_000;

fn t(minutes: Millis) -> Millis {
    NOON + minutes * MINUTE_MS
}

fn world() -> Arc<World> {
    let world = World::new();
    let event = |minute, kind, country, device, amount, user| Event {
        at: t(minute) + 5_000,
        text: [kind, country, device],
        amount: Some(amount),
        user,
    };
    world.add([
        event(-9, "purchase", "US", "mobile", 1.0, 1),
        event(-3, "purchase", "US", "mobile", 2.5, 1),
        event(-3, "view", "US", "desktop", 4.0, 1),
        event(-2, "error", "DE", "mobile", 0.5, 2),
        event(-2, "view", "US", "mobile", 8.0, 2),
        event(-1, "error", "DE", "mobile", 0.25, 3),
        event(-1, "purchase", "US", "mobile", 16.0, 1),
        event(-1, "view", "", "mobile", 32.0, 4),
        event(0, "purchase", "US", "mobile", 64.0, 1),
        event(0, "purchase", "FR", "mobile", 64.0, 5),
    ]);
    world.close_until(NOON);
    Arc::new(world)
}

fn fresh() -> Arc<Services> {
    services(world(), Settings::default())
}

fn send(services: &Arc<Services>, request: Request<Body>) -> (u16, Value) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let response = router(services.clone(), axum::Router::new(), true).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        assert_eq!(parts.headers["content-type"], "application/json");
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status.as_u16(), serde_json::from_slice(&body).unwrap())
    })
}

fn get(services: &Arc<Services>, path: &str) -> (u16, Value) {
    send(services, Request::get(path).body(Body::empty()).unwrap())
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Labels and value of each series at an instant, in the order of the answer.
fn at(services: &Arc<Services>, query: &str, time: Millis) -> Vec<(String, String)> {
    let path = format!("/api/v1/query?query={}&time={}", encoded(query), time as f64 / 1e3);
    let (status, answer) = get(services, &path);
    assert_eq!(status, 200, "{query}: {answer}");
    let series = answer["data"]["result"].as_array().unwrap();
    let told = |series: &Value| {
        let labels = series["metric"].as_object().unwrap().iter();
        let labels: Vec<String> = labels.map(|(name, value)| format!("{name}={}", value.as_str().unwrap())).collect();
        (labels.join(" "), series["value"][1].as_str().unwrap().to_owned())
    };
    series.iter().map(told).collect()
}

fn check(services: &Arc<Services>, query: &str, time: Millis, expected: &[(&str, &str)]) {
    let actual = at(services, query, time);
    let same = actual.iter().map(|(labels, value)| (labels.as_str(), value.as_str())).eq(expected.iter().copied());
    assert!(same, "{query}: {actual:?}, expected {expected:?}");
}

#[test]
fn expressions_give_what_prometheus_would() {
    let services = fresh();
    // At the last closed minute: DE 1 error; US 1 purchase on mobile, nothing on the desktop; 1 from nowhere.
    let cases: &[(&str, &[(&str, &str)])] = &[
        (
            "events",
            &[
                ("__name__=events country=DE device=mobile", "1"),
                ("__name__=events country=US device=desktop", "0"),
                ("__name__=events country=US device=mobile", "1"),
                ("__name__=events device=mobile", "1"),
            ],
        ),
        (r#"events{country="DE"}"#, &[("__name__=events country=DE device=mobile", "1")]),
        (r#"events{country=""}"#, &[("__name__=events device=mobile", "1")]),
        (r#"events{country=~"D.|X"}"#, &[("__name__=events country=DE device=mobile", "1")]),
        (r#"events{country=~"D"}"#, &[]),
        (
            r#"events{country!="US",device!~"desk.*"}"#,
            &[("__name__=events country=DE device=mobile", "1"), ("__name__=events device=mobile", "1")],
        ),
        (r#"events{country="DE",country!="DE"}"#, &[]),
        (r#"events{unheard="",country="DE"}"#, &[("__name__=events country=DE device=mobile", "1")]),
        (r#"events{unheard="x"}"#, &[]),
        ("nothing_of_this_name", &[]),
        ("sum(nothing_of_this_name)", &[]),
        ("sum(events)", &[("", "3")]),
        ("sum by (country) (events)", &[("", "1"), ("country=DE", "1"), ("country=US", "1")]),
        ("sum without (country) (events)", &[("device=desktop", "0"), ("device=mobile", "3")]),
        (r#"sum by (device) (events{country=~"DE|US"})"#, &[("device=desktop", "0"), ("device=mobile", "2")]),
        ("avg(events)", &[("", "0.75")]),
        ("count(events)", &[("", "4")]),
        ("min(events)", &[("", "0")]),
        ("max by (country) (high)", &[("country=US", "16")]),
        ("topk(1, mean)", &[("__name__=mean device=mobile", "32")]),
        ("topk(2, sum by (country) (revenue))", &[("country=US", "19.5")]),
        ("bottomk(1, mean)", &[("__name__=mean country=DE device=mobile", "0.375")]),
        ("-sum(events) + 10", &[("", "7")]),
        ("2 ^ sum(events) % 5", &[("", "3")]),
        ("sum(events) > 5", &[]),
        ("5 > sum(events)", &[("", "3")]),
        ("sum(events) > bool 5", &[("", "0")]),
        (r#"events{country="DE"} >= 1"#, &[("__name__=events country=DE device=mobile", "1")]),
        ("errors / events", &[("country=DE device=mobile", "1")]),
        ("sum by (country) (errors) / sum by (country) (events)", &[("country=DE", "1")]),
        (r#"sum by (country) (events) / on () sum(events{country="nowhere"})"#, &[]),
        (r#"events{country="DE"} / on (country) sum by (country) (errors)"#, &[("country=DE", "1")]),
        (r#"events{country="DE"} - ignoring (device) sum by (country) (errors)"#, &[("country=DE", "0")]),
        ("sum(events offset 1m)", &[("", "2")]),
        ("sum(events offset -1m)", &[("", "3")]),
        ("sum(events) / 0", &[("", "+Inf")]),
        ("sum(events) * NaN", &[("", "NaN")]),
        // Distinct users of five minutes: merged where `__by__` says so, added up as numbers where `sum` does.
        ("users", &[("__name__=users", "1"), ("__name__=users country=DE", "2"), ("__name__=users country=US", "2")]),
        ("sum(users)", &[("", "5")]),
        (r#"users{__by__=""}"#, &[("__name__=users", "4")]),
        (
            r#"users{__by__="country",country=~"US|DE"}"#,
            &[("__name__=users country=DE", "2"), ("__name__=users country=US", "2")],
        ),
        (r#"users{__by__="",country=~"US|DE"}"#, &[("__name__=users", "3")]),
        (r#"users{__by__="",country!="US"}"#, &[("__name__=users", "3")]),
        (r#"users{__by__="",country=~"X"}"#, &[]),
        (r#"events{__by__="",__step__="5m"}"#, &[("__name__=events", "7")]),
        (r#"sum({__name__=~"events|errors"})"#, &[("", "4")]),
    ];
    for (query, expected) in cases {
        check(&services, query, t(-1), expected);
    }
}

#[test]
fn an_instant_takes_the_last_closed_point() {
    let services = fresh();
    let cases: &[(&str, Millis, Points<'_>)] = &[
        ("sum(events)", t(-1) + 59_999, &[("", "3")]),
        ("sum(events)", t(-1) - 1, &[("", "2")]),
        // Not closed: the minute before it, for five minutes.
        ("sum(events)", t(0), &[("", "3")]),
        ("sum(events)", NOW, &[("", "3")]),
        ("sum(events)", t(4) - 1, &[("", "3")]),
        ("sum(events)", t(4), &[]),
        ("sum(events)", t(500), &[]),
        ("sum(events)", t(-500), &[]),
        // Where nothing is closed yet, what there is.
        (r#"events{country="FR"}"#, NOW, &[("__name__=events country=FR device=mobile", "1")]),
        (r#"events{country="FR"}"#, t(-1), &[]),
        // A closed minute without a point is the end of what has none by itself.
        (r#"low{country="DE"}"#, t(-1), &[("__name__=low country=DE device=mobile", "0.25")]),
        (r#"low{country="US",device="desktop"}"#, t(-1), &[]),
        // The step of two minutes that holds 11:58 and 11:59.
        (r#"events{__by__="",__step__="2m"}"#, t(-2), &[("__name__=events", "5")]),
        (r#"events{__by__="",__step__="61"}"#, NOW, &[("__name__=events", "5")]),
    ];
    for (query, time, expected) in cases {
        check(&services, query, *time, expected);
    }
    let (_, answer) = get(&services, "/api/v1/query?query=sum(events)");
    assert_eq!(answer["data"]["result"], json!([{"metric": {}, "value": [1_704_110_430, "3"]}]), "now, without `time`");
}

/// Labels → time → value.
type Told = BTreeMap<String, BTreeMap<Millis, f64>>;

fn told_by_query(answer: &Value) -> Told {
    let mut told = Told::new();
    for series in answer["series"].as_array().unwrap() {
        let mut labels = series["labels"].as_object().unwrap().clone();
        labels.retain(|_, value| value != "");
        labels.sort_keys();
        let points = series["points"].as_array().unwrap().iter();
        let points = points.filter_map(|point| Some((point[0].as_i64()?, point[1].as_f64()?)));
        told.insert(Value::Object(labels).to_string(), points.collect());
    }
    told.retain(|_, points| !points.is_empty());
    told
}

fn told_by_range(answer: &Value) -> Told {
    let mut told = Told::new();
    for series in answer["data"]["result"].as_array().unwrap() {
        let mut labels = series["metric"].as_object().unwrap().clone();
        labels.remove("__name__");
        labels.sort_keys();
        let values = series["values"].as_array().unwrap().iter();
        let value = |value: &Value| (value[0].as_i64().unwrap() * 1_000, value[1].as_str().unwrap().parse().unwrap());
        told.insert(Value::Object(labels).to_string(), values.map(value).collect());
    }
    told
}

#[test]
fn ranges_equal_those_of_v1_query() {
    let services = fresh();
    let names: Vec<(String, Vec<String>)> = {
        let active = services.active.load_full();
        active.definitions.metrics.iter().map(|m| (m.name.clone(), m.dimensions.clone())).collect()
    };
    let mut compared = 0;
    for (name, dimensions) in &names {
        let mut groupings = vec![String::new(), dimensions.join(",")];
        groupings.extend(dimensions.clone());
        for by in groupings {
            for (from, to, step) in [(-9, 0, 1), (-30, 0, 1), (-2, 0, 1), (-60, 0, 5)] {
                let asked = format!("metric={name}&by={by}&from={}&to={}&step={step}m", t(from), t(to));
                let (status, answer) = get(&services, &format!("/v1/query?{asked}"));
                assert_eq!(status, 200, "{asked}: {answer}");
                let expected = told_by_query(&answer);
                let query = encoded(&format!("{name}{{__by__=\"{by}\",__step__=\"{step}m\"}}"));
                let (start, end) = (t(from) / 1_000, t(to - step) / 1_000);
                let range = format!("query={query}&start={start}&end={end}&step={}", step * 60);
                let (status, answer) = get(&services, &format!("/api/v1/query_range?{range}"));
                assert_eq!(status, 200, "{range}: {answer}");
                assert_eq!(told_by_range(&answer), expected, "{asked}");
                compared += expected.len();
            }
        }
    }
    assert!(compared > 100, "{compared} series were compared");
}

#[test]
fn ranges_take_any_step() {
    let services = fresh();
    let range = |query: &str, start: Millis, end: Millis, step: &str| {
        let (start, end) = (start as f64 / 1e3, end as f64 / 1e3);
        let path = format!("/api/v1/query_range?query={}&start={start}&end={end}&step={step}", encoded(query));
        let (status, answer) = get(&services, &path);
        assert_eq!((status, &answer["data"]["resultType"]), (200, &json!("matrix")), "{path}: {answer}");
        answer["data"]["result"].clone()
    };
    let second = |ms: Millis| ms / 1_000;
    assert_eq!(
        range("sum(events)", t(-2), t(-1) + 30_000, "37s"),
        json!([{"metric": {}, "values": [
            [second(t(-2)), "2"], [second(t(-2)) + 37, "2"], [second(t(-2)) + 74, "3"]]}])
    );
    assert_eq!(
        range("1 + 1", t(-2), t(-1), "1m"),
        json!([{"metric": {}, "values": [[second(t(-2)), "2"], [second(t(-1)), "2"]]}])
    );
    assert_eq!(range("sum(nothing)", t(-2), t(-1), "1m"), json!([]));
    // The largest at each instant.
    let at = |minute| second(t(minute));
    assert_eq!(
        range("topk(1, low)", t(-3), t(-1), "60"),
        json!([
            {"metric": {"__name__": "low", "country": "US", "device": "desktop"}, "values": [[at(-3), "4"]]},
            {"metric": {"__name__": "low", "country": "US", "device": "mobile"}, "values": [[at(-2), "8"]]},
            {"metric": {"__name__": "low", "device": "mobile"}, "values": [[at(-1), "32"]]},
        ])
    );
}

#[test]
fn answers_have_the_shape_of_prometheus() {
    let services = fresh();
    let cases = [
        ("/api/v1/query?query=1%2B1&time=5.5", json!({"resultType": "scalar", "result": [5.5, "2"]})),
        ("/api/v1/query?query=nothing", json!({"resultType": "vector", "result": []})),
        ("/api/v1/labels", json!(["__name__", "country", "device"])),
        ("/api/v1/labels?match[]=users", json!(["__name__", "country"])),
        ("/api/v1/labels?match[]=nothing", json!([])),
        (r#"/api/v1/labels?match[]=events{country=%22nowhere%22}"#, json!([])),
        ("/api/v1/label/country/values", json!(["DE", "FR", "US"])),
        ("/api/v1/label/country/values?match[]=errors", json!(["DE"])),
        ("/api/v1/label/device/values?match[]=users", json!([])),
        (r#"/api/v1/label/device/values?match[]=events{country!=%22US%22}"#, json!(["mobile"])),
        ("/api/v1/label/unheard/values", json!([])),
        (r#"/api/v1/label/__name__/values?match[]={__name__=~%22e.*s%22}"#, json!(["errors", "events"])),
        (r#"/api/v1/label/__name__/values?match[]={country=%22FR%22,__name__=~%22e.*s%22}"#, json!(["events"])),
        (
            "/api/v1/series?match[]=users",
            json!([{"__name__": "users"}, {"__name__": "users", "country": "DE"},
                {"__name__": "users", "country": "FR"}, {"__name__": "users", "country": "US"}]),
        ),
        (
            "/api/v1/series?match[]=errors&match[]=nothing",
            json!([{"__name__": "errors", "country": "DE", "device": "mobile"}]),
        ),
        ("/api/v1/series?match[]=users&start=0&end=1000", json!([])),
        ("/api/v1/metadata?metric=events", json!({"events": [{"type": "gauge", "help": "events", "unit": ""}]})),
        ("/api/v1/metadata?metric=nothing", json!({})),
    ];
    for (path, expected) in cases {
        let (status, answer) = get(&services, path);
        assert_eq!((status, answer), (200, json!({"status": "success", "data": expected})), "{path}");
    }
    let (_, names) = get(&services, "/api/v1/label/__name__/values?limit=1");
    assert_eq!((&names["data"], names["warnings"].is_array()), (&json!(["error_rate"]), true), "{names}");
    let (_, limited) = get(&services, "/api/v1/query?query=events&limit=2");
    assert_eq!(limited["data"]["result"].as_array().map(Vec::len), Some(2));
    assert!(limited["warnings"].is_array());
    let (_, info) = get(&services, "/api/v1/status/buildinfo");
    assert!(info["data"]["version"].is_string());
}

#[test]
fn a_form_is_as_good_as_a_url() {
    let services = fresh();
    let form = |path: &str, body: &str| {
        let request = Request::post(path).header("content-type", "application/x-www-form-urlencoded; charset=UTF-8");
        send(&services, request.body(Body::from(body.to_owned())).unwrap())
    };
    let (status, answer) = form("/api/v1/query", "query=1%2B1&time=5");
    assert_eq!((status, &answer["data"]["result"]), (200, &json!([5, "2"])));
    let (status, answer) = form("/api/v1/labels?match[]=users", "");
    assert_eq!((status, &answer["data"]), (200, &json!(["__name__", "country"])));
    let (status, answer) = form("/api/v1/query", &format!("query={}", "a".repeat(300_000)));
    assert_eq!((status, &answer["errorType"]), (413, &json!("bad_data")));
}

#[test]
fn mistakes_are_answered_in_its_shape() {
    let services = fresh();
    let range = |rest: &str| format!("/api/v1/query_range?query=events&{rest}");
    let query = |text: &str| format!("/api/v1/query?query={}", encoded(text));
    let cases = [
        ("/api/v1/query".to_owned(), 400, "bad_data"),
        (query("sum("), 400, "bad_data"),
        (query("rate(events[5m])"), 400, "bad_data"),
        (query(r#"events{country=~"("}"#), 400, "bad_data"),
        (query(r#"events{__by__="contry"}"#), 400, "bad_data"),
        (query(r#"{__name__=~"events|errors"} + 1"#), 422, "execution"),
        (query("events / on (country) events"), 422, "execution"),
        (query(r#"sum by (country) (events) / on () group_left sum(events)"#), 400, "bad_data"),
        ("/api/v1/query?query=events&time=soon".into(), 400, "bad_data"),
        ("/api/v1/query?query=events&timeout=soon".into(), 400, "bad_data"),
        ("/api/v1/query?query=events&limit=-1".into(), 400, "bad_data"),
        (range(""), 400, "bad_data"),
        (range("start=1&end=2"), 400, "bad_data"),
        (range("start=2&end=1&step=1"), 400, "bad_data"),
        (range("start=1&end=2&step=0"), 400, "bad_data"),
        (range("start=1&end=2&step=-1m"), 400, "bad_data"),
        (range("start=0&end=11001&step=1"), 400, "bad_data"),
        // Minutes are not kept so long.
        (range(&format!("start={}&end={}&step=3600", NOW / 1_000 - 9 * 86_400, NOW / 1_000)), 422, "execution"),
        ("/api/v1/series".into(), 400, "bad_data"),
        ("/api/v1/series?match[]=sum(events)".into(), 400, "bad_data"),
        ("/api/v1/labels?match[]=events{".into(), 400, "bad_data"),
        ("/api/v1/labels?start=2&end=1".into(), 400, "bad_data"),
        ("/api/v1/rules".into(), 404, "not_found"),
        ("/api/v1/query?query=sum(events)&timeout=0.0001ms".into(), 400, "bad_data"),
    ];
    for (path, status, kind) in cases {
        let (actual, answer) = get(&services, &path);
        assert_eq!(
            (actual, &answer["status"], &answer["errorType"]),
            (status, &json!("error"), &json!(kind)),
            "{path}: {answer}"
        );
        assert!(answer["error"].as_str().is_some_and(|text| !text.is_empty()), "{path}");
    }
    let long = "/api/v1/query_range?query=events&start=0&end=11000&step=1";
    assert_eq!(get(&services, long).0, 200, "11,000 points are not too many, and of 1970 there are none");
}

#[test]
fn too_many_samples_are_refused() {
    let world = World::new();
    let names: Vec<&'static str> = (0..600).map(|n| &*format!("c{n}").leak()).collect();
    world.add(names.iter().map(|name| Event { at: t(-2), text: ["x", name, "d"], amount: None, user: 0 }));
    world.close_until(NOON);
    let services = services(Arc::new(world), Settings::default());
    let path =
        format!("/api/v1/query_range?query=events&start={}&end={}&step=1", t(-2) / 1_000, t(-2) / 1_000 + 10_000);
    let (status, answer) = get(&services, &path);
    assert_eq!((status, &answer["errorType"]), (422, &json!("execution")), "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("too many samples"), "{answer}");
    let summed = path.replace("query=events", "query=sum(events)");
    assert_eq!(get(&services, &summed).0, 200, "the sum is one series");
}

#[test]
fn readers_need_their_key_as_token_or_password() {
    let keys = Keys { read: vec!["r".into()], write: vec!["w".into()] };
    let services = services(world(), Settings { keys, ..Settings::default() });
    // grafana:r, grafana:w, without a colon, not base64.
    let cases = [
        (None, 401),
        (Some("Bearer r"), 200),
        (Some("Bearer w"), 401),
        (Some("Basic Z3JhZmFuYTpy"), 200),
        (Some("basic Z3JhZmFuYTpy"), 200),
        (Some("Basic Z3JhZmFuYTp3"), 401),
        (Some("Basic cg=="), 401),
        (Some("Basic !"), 401),
    ];
    for path in ["/api/v1/query?query=1", "/api/v1/status/buildinfo", "/api/v1/label/country/values", "/api/v1/x"] {
        for (header, expected) in cases {
            let request = Request::get(path);
            let request = header.map_or(Request::get(path), |header| request.header("authorization", header));
            let (status, answer) = send(&services, request.body(Body::empty()).unwrap());
            let expected = if path == "/api/v1/x" && expected == 200 { 404 } else { expected };
            assert_eq!(status, expected, "{path} {header:?}: {answer}");
        }
    }
}
