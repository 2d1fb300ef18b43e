//! What clients send, and which lines and answers come of it.

use std::io::Write;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;
use crate::ingest::fake::FakeIntake;
use crate::ingest::{Refusal, http};
use crate::telemetry::Telemetry;
use crate::time::Clock;
use crate::web::Peer;

type Headers<'a> = &'a [(&'a str, &'a str)];

/// 2026-11-30T12:00:00Z
const NOW: Millis = 1_796_040_000_000;

fn door(intake: FakeIntake, write_keys: &[&str]) -> Arc<Door<FakeIntake>> {
    let settings = http::Settings {
        keys: Keys { write: write_keys.iter().map(ToString::to_string).collect(), read: vec![] },
        trusted_proxies: vec![],
        allow_origin: vec!["https://shop.example".into()],
        body_bytes_max: 4_000,
        inflight_bytes_max: 1_000_000,
    };
    Door::new(Arc::new(intake), settings, Clock::manual(NOW), Arc::<Telemetry>::default())
}

struct Answer {
    status: u16,
    headers: axum::http::HeaderMap,
    body: Value,
    lines: String,
    client: Option<Client>,
}

fn send(door: &Arc<Door<FakeIntake>>, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let (method, path) = path.split_once(' ').unwrap_or(("POST", path));
    let builder = Request::builder().method(method).uri(path);
    let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
    let mut request = builder.body(body.into()).unwrap();
    request.extensions_mut().insert(Peer("203.0.113.9:4000".parse().unwrap()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (parts, body) = runtime.block_on(async {
        let (parts, body) = router(door.clone()).oneshot(request).await.unwrap().into_parts();
        (parts, body.collect().await.unwrap().to_bytes())
    });
    let batch = door.intake.batches.lock().unwrap().pop();
    let text = |batch: &RawBatch| String::from_utf8(batch.bytes[..batch.len].to_vec()).unwrap();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        lines: batch.as_ref().map(text).unwrap_or_default(),
        client: batch.map(|batch| batch.client),
    }
}

fn open_door() -> Arc<Door<FakeIntake>> {
    door(FakeIntake::default(), &[])
}

#[test]
fn segment_calls_become_lines() {
    let context =
        r#"{"ip":"192.0.2.1","userAgent":"UA","locale":"de-DE","page":{"url":"https://a/","referrer":"https://b/"}}"#;
    let cases = [
        (
            "/v1/track",
            format!(
                r#"{{"userId":"u1","anonymousId":"a1","event":"Order Completed","messageId":"m1","timestamp":"2026-11-30T11:00:00.000Z",
                    "sentAt":"2026-11-30T11:59:50.000Z","properties":{{"amount": 1.50,
                    "list":[1]}},"context":{context}}}"#
            ),
            concat!(
                r#"{"type":"order_completed","ts":1796036410000,"user_id":"u1","id":"m1","url":"https://a/","#,
                r#""referrer":"https://b/","locale":"de-DE","ip":"192.0.2.1","user_agent":"UA","#,
                r#""props":{"amount": 1.50,                     "list":[1]}}"#
            ),
        ),
        // Without a time of sending there is nothing to put right; without any, it is when it arrived.
        (
            "/v1/track",
            r#"{"event":"A","timestamp":"2026-11-30T11:00:00Z"}"#.into(),
            r#"{"type":"a","ts":"2026-11-30T11:00:00Z"}"#,
        ),
        ("/v1/track", r#"{"event":"A","sentAt":"2026-11-30T11:00:00Z"}"#.into(), r#"{"type":"a"}"#),
        ("/v1/track", r#"{"event":"A","timestamp":"now","sentAt":"then"}"#.into(), r#"{"type":"a","ts":"now"}"#),
        (
            "/v1/page",
            r#"{"anonymousId":"a1","userId":null,"name":"Home","properties":{"url":"https://p/","referrer":"https://r/"}}"#
                .into(),
            concat!(
                r#"{"type":"page_view","user_id":"a1","url":"https://p/","referrer":"https://r/","name":"Home","#,
                r#""props":{"url":"https://p/","referrer":"https://r/"}}"#
            ),
        ),
        ("/v1/screen", r#"{"userId":"","anonymousId":"a"}"#.into(), r#"{"type":"page_view","user_id":"a"}"#),
        (
            "/v1/identify",
            r#"{"userId":7,"messageId":8,"traits":{"plan":"pro"}}"#.into(),
            r#"{"type":"identify","user_id":"7","id":"8","props":{"plan":"pro"}}"#,
        ),
        (
            "/v1/group",
            r#"{"userId":"u","groupId":"g","traits":{}}"#.into(),
            r#"{"type":"group","user_id":"u","group_id":"g","props":{}}"#,
        ),
        (
            "/v1/alias",
            r#"{"userId":"u","previousId":"p"}"#.into(),
            r#"{"type":"alias","user_id":"u","previous_id":"p"}"#,
        ),
        // The path says what it is; wrong types are left to those who judge events.
        ("/v1/t", r#"{"type":"page","event":5,"userId":{}}"#.into(), r#"{"user_id":{}}"#),
        ("/v1/i", r#"{"userId":"u","userId":"last"}"#.into(), r#"{"type":"identify","user_id":"last"}"#),
    ];
    for (path, body, expected) in cases {
        let answer = send(&open_door(), path, &[], body.clone());
        assert_eq!((answer.lines.trim_end(), answer.status), (expected, 200), "{path} {body}");
        assert_eq!(answer.body, json!({"success": true}));
    }
}

#[test]
fn a_batch_shares_its_envelope() {
    let body = r#"{"batch":[
        {"type":"track","event":"A","messageId":"1","timestamp":"2026-11-30T11:59:00Z","context":{"ip":"192.0.2.2"}},
        {"type":"page","messageId":"2"}, {"event":"B"}, {"type":"unheard of"}, 5, {"\ud800":1}
      ],"context":{"ip":"192.0.2.1","locale":"fr"},"sentAt":"2026-11-30T12:00:01Z","writeKey":"w"}"#;
    for path in ["/v1/batch", "/v1/import", "/v1/b"] {
        let answer = send(&door(FakeIntake::default(), &["w"]), path, &[], body);
        let expected = concat!(
            r#"{"type":"a","ts":1796039939000,"id":"1","locale":"fr","ip":"192.0.2.2"}"#,
            "\n",
            r#"{"type":"page_view","id":"2","locale":"fr","ip":"192.0.2.1"}"#,
            "\n",
            r#"{"type":"b","locale":"fr","ip":"192.0.2.1"}"#,
            "\n",
            r#"{"locale":"fr","ip":"192.0.2.1"}"#,
            "\n5\n",
            r#"[{"\ud800":1}]"#,
            "\n"
        );
        assert_eq!(answer.lines, expected);
        let errors = json!([{"index": 4, "reason": "no object"}, {"index": 5, "reason": "no object"}]);
        assert_eq!((answer.status, answer.body), (200, json!({"success": true, "rejected": 2, "errors": errors})));
    }
    let empty = send(&open_door(), "/v1/batch", &[], r#"{"batch":[]}"#);
    assert_eq!((empty.status, empty.body, empty.lines.as_str()), (200, json!({"success": true}), ""));
}

#[test]
fn posthog_events_become_lines() {
    let own = r#""event":"$pageview","properties":{"token":"k","distinct_id":"d","$current_url":"https://a/","$referrer":"$direct","$browser_language":"en"}"#;
    let view = concat!(
        r#"{"type":"page_view","user_id":"d","url":"https://a/","locale":"en","props":{"token":"k","distinct_id":"d","#,
        r#""$current_url":"https://a/","$referrer":"$direct","$browser_language":"en"}}"#
    );
    let cases = [
        (
            "/batch/",
            r#"{"api_key":"k","sent_at":"2026-11-30T11:00:00+00:00","batch":[
                {"event":"Order Completed","distinct_id":"d","uuid":"i1","timestamp":"2026-11-30T10:00:00.5+00:00","properties":{"$ip":"192.0.2.3","$raw_user_agent":"UA","n":1}},
                {"event":"$set","distinct_id":"d"},{"event":"$identify"},{"event":"$groupidentify"},{"event":"$create_alias"},
                {"event":"a","timestamp":"2026-11-30T10:00:00Z","properties":{"$ignore_sent_at":true,"$insert_id":"i2"}},null]}"#
                .to_owned(),
            [
                r#"{"type":"order_completed","ts":1796036400500,"user_id":"d","id":"i1","ip":"192.0.2.3","user_agent":"UA","props":{"$ip":"192.0.2.3","$raw_user_agent":"UA","n":1}}"#,
                r#"{"type":"set","user_id":"d"}"#,
                r#"{"type":"identify"}"#,
                r#"{"type":"group"}"#,
                r#"{"type":"alias"}"#,
                r#"{"type":"a","ts":"2026-11-30T10:00:00Z","id":"i2","props":{"$ignore_sent_at":true,"$insert_id":"i2"}}"#,
                "null",
            ]
            .join("\n"),
        ),
        ("/capture/", format!("{{{own}}}"), view.to_owned()),
        ("/i/v0/e/?ip=0&_=1796039990000&ver=1.2", format!("[{{{own},\"timestamp\":1796039980000}}]"), view.replace(
            "\"user_id\"",
            "\"ts\":1796039990000,\"user_id\"",
        )),
        ("/e/", format!("{{{own},\"offset\":1500.5}}"), view.replace("\"user_id\"", "\"ts\":1796039998500,\"user_id\"")),
        ("/capture", r#"{"token":"k","event":"","distinct_id":5}"#.into(), r#"{"user_id":"5"}"#.into()),
    ];
    for (path, body, expected) in cases {
        let answer = send(&door(FakeIntake::default(), &["k"]), path, &[], body.clone());
        assert_eq!((answer.lines.trim_end(), answer.status), (expected.as_str(), 200), "{path} {body}");
        let success = if path.contains("capture") || path == "/e/" { json!(1) } else { json!("Ok") };
        assert_eq!(answer.body["status"], success);
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// As forms are escaped, but for letters and digits.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[test]
fn bodies_are_unpacked_as_clients_pack_them() {
    let json = r#"{"api_key":"k","event":"a   ?~ÿ","uuid":"i"}"#;
    let line = "{\"type\":\"a_ÿ\",\"id\":\"i\"}\n";
    let base64 = BASE64_STANDARD.encode(json);
    assert!(base64.contains('+'), "the plus sign is what clients forget to escape: {base64}");
    let zipped = BASE64_STANDARD.encode(gzip(json));
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let gzipped = [("content-encoding", "gzip")];
    let text = [("content-type", "text/plain")];
    let cases: Vec<(&str, Headers<'_>, Vec<u8>)> = vec![
        ("/e/", &[], json.into()),
        ("/e/", &text, json.into()),
        ("/e/", &gzipped, gzip(json)),
        ("/e/?compression=gzip-js", &text, gzip(json)),
        ("/e/?compression=gzip", &[], gzip(json)),
        ("/e/?compression=base64", &form, format!("data={base64}").into()),
        ("/e/", &form, format!("data={}", escaped(&base64)).into()),
        ("/e/", &form, format!("ver=1&data={}&compression=base64", escaped(json)).into()),
        ("/e/?compression=gzip-js", &form, format!("data={zipped}").into()),
        ("/e/", &text, base64.trim_end_matches('=').into()),
    ];
    for (path, headers, body) in cases {
        let answer = send(&open_door(), path, headers, body.clone());
        assert_eq!((answer.lines.as_str(), answer.status), (line, 200), "{path} {}", String::from_utf8_lossy(&body));
    }
}

#[test]
fn keys_open_the_door_wherever_the_client_puts_them() {
    let basic = |user: &str| format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:")));
    let (good, wrong, open) = (basic("k"), basic("wrong"), basic(""));
    let cases: Vec<(&str, Option<&str>, &str, u16)> = vec![
        ("/v1/track", Some(&good), r#"{"event":"a"}"#, 200),
        ("/v1/track", Some("Bearer k"), r#"{"event":"a"}"#, 200),
        ("/v1/track", Some(&wrong), r#"{"event":"a","writeKey":"k"}"#, 401),
        ("/v1/track", Some(&open), r#"{"event":"a","writeKey":"k"}"#, 401),
        ("/v1/track", None, r#"{"event":"a","writeKey":"k"}"#, 200),
        ("/v1/track", None, r#"{"event":"a","writeKey":"r"}"#, 401),
        ("/v1/track", None, r#"{"event":"a","writeKey":5}"#, 401),
        ("/v1/batch", None, r#"{"batch":[{"event":"a","writeKey":"k"}]}"#, 401),
        ("/v1/batch", None, r#"{"batch":[{"event":"a"}],"writeKey":"k"}"#, 200),
        ("/batch/", None, r#"{"batch":[{"event":"a"}],"api_key":"k"}"#, 200),
        ("/batch/", None, r#"{"batch":[{"event":"a","api_key":"k"}],"api_key":"x"}"#, 401),
        ("/batch/", None, r#"{"batch":[{"event":"a","api_key":"k"},{"event":"b","properties":{"token":"k"}}]}"#, 200),
        ("/batch/", None, r#"{"batch":[{"event":"a","api_key":"k"},{"event":"b"}]}"#, 401),
        ("/batch/", None, r#"{"batch":[{"event":"a","api_key":"k"},5]}"#, 401),
        ("/e/", None, r#"[{"event":"a","token":"k"}]"#, 200),
        ("/e/", None, r#"{"event":"a"}"#, 401),
        ("/e/", Some("Bearer k"), r#"{"event":"a"}"#, 200),
    ];
    for (path, authorization, body, status) in cases {
        let door = door(FakeIntake::default(), &["k"]);
        let headers: Vec<_> = authorization.iter().map(|value| ("authorization", *value)).collect();
        let answer = send(&door, path, &headers, body);
        assert_eq!(answer.status, status, "{path} {authorization:?} {body}: {}", answer.body);
        assert_eq!(answer.lines.is_empty(), status != 200, "nothing is taken of what is refused");
        assert_eq!(answer.body["code"] == "unauthorized", status == 401);
        assert_eq!(door.inflight_bytes.load(Ordering::Acquire), 0);
    }
}

#[test]
fn bad_bodies_are_refused_in_the_shape_that_is_spoken() {
    let long = format!(r#"{{"batch":[{}{{}}]}}"#, r#"{"type":"page"},"#.repeat(300));
    let context = format!(r#"{{"context":{{"locale":"{}"}},"batch":[{{}},{{}},{{}},{{}}]}}"#, "x".repeat(1_500));
    let bomb = gzip(&" ".repeat(100_000));
    let gzipped: &[(&str, &str)] = &[("content-encoding", "gzip")];
    let cases: Vec<(&str, Headers<'_>, Vec<u8>, u16, &str)> = vec![
        ("/v1/batch", &[], "".into(), 400, "invalid_json"),
        ("/v1/batch", &[], "[]".into(), 400, "invalid_json"),
        ("/v1/batch", &[], "{".into(), 400, "invalid_json"),
        ("/v1/batch", &[], r#"{"batch":[{"a":}]}"#.into(), 400, "invalid_json"),
        ("/v1/batch", &[], vec![b'{', 0xff, b'}'], 400, "invalid_json"),
        ("/v1/batch", &[], "{}".into(), 400, "invalid_request"),
        ("/v1/batch", &[], r#"{"batch":{}}"#.into(), 400, "invalid_request"),
        ("/v1/batch", &[], r#"{"batch":[5,[]]}"#.into(), 400, "invalid_events"),
        ("/v1/batch", &[], long.into(), 413, "body_too_large"),
        ("/v1/batch", &[], context.into(), 413, "body_too_large"),
        ("/v1/batch", gzipped, bomb.clone(), 413, "body_too_large"),
        ("/v1/batch", gzipped, "{}".into(), 400, "invalid_encoding"),
        ("/v1/batch", &[("content-encoding", "br")], "{}".into(), 415, "unsupported_media_type"),
        ("/batch/", &[], "[".repeat(3_000).into(), 400, "invalid_json"),
        ("/batch/", &[], "nonsense".into(), 400, "invalid_json"),
        ("/batch/", &[], r#"{"batch":5}"#.into(), 400, "invalid_payload"),
        ("/batch/", &[], r#"[5]"#.into(), 400, "invalid_events"),
        ("/batch/", &[], bomb.clone(), 413, "body_too_large"),
        ("/batch/", &[], BASE64_STANDARD.encode(&bomb).into(), 413, "body_too_large"),
        ("/batch/", &[], b"\x1f\x8bnonsense".to_vec(), 400, "invalid_encoding"),
        ("/batch/?compression=lz64", &[], "{}".into(), 400, "invalid_encoding"),
    ];
    for (path, headers, body, status, code) in cases {
        let door = open_door();
        let answer = send(&door, path, headers, body.clone());
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!(
            (answer.status, answer.body["code"].as_str()),
            (status, Some(code)),
            "{path} {shown}: {}",
            answer.body
        );
        let (text, mark) = if path.starts_with("/v1") { ("message", "success") } else { ("detail", "type") };
        assert!(answer.body[text].as_str().is_some_and(|text| !text.is_empty()) && !answer.body[mark].is_null());
        assert_eq!(door.inflight_bytes.load(Ordering::Acquire), 0, "what was held is given back");
    }
}

#[test]
fn a_full_or_broken_intake_says_when_to_come_back() {
    for (path, body) in [("/v1/track", r#"{"event":"a"}"#), ("/batch/", r#"{"event":"a"}"#)] {
        let full = Refusal::Busy { retry_after_s: 2 };
        let broken = Refusal::Unavailable { reason: "the disk is full".into(), retry_after_s: 30 };
        for (refusal, status, after) in [(full, 429, "2"), (broken, 503, "30")] {
            let intake = FakeIntake { refusal: Some(refusal), ..FakeIntake::default() };
            let answer = send(&door(intake, &[]), path, &[], body);
            assert_eq!((answer.status, answer.headers["retry-after"].to_str().unwrap()), (status, after));
        }
    }
}

#[test]
fn a_server_is_no_user() {
    let cases = [
        ("Mozilla/5.0 (X11; Linux x86_64)", true),
        ("analytics-swift/1.5", true),
        ("analytics-node-next/latest", false),
        ("analytics-python/2.4.0", false),
        ("Analytics.NET/3.8", false),
        ("posthog-node/5.70.0", false),
        ("posthog-python/7.91.1", false),
        ("analytics-goose/1", true),
    ];
    for (user_agent, is_user) in cases {
        let answer = send(&open_door(), "/v1/track", &[("user-agent", user_agent)], r#"{"event":"a"}"#);
        let user = Client { address: Some("203.0.113.9".parse().unwrap()), user_agent: Some(user_agent.into()) };
        assert_eq!(answer.client, Some(if is_user { user } else { Client::default() }), "{user_agent}");
    }
}

#[test]
fn pages_of_listed_sites_may_send() {
    let shop = ("origin", "https://shop.example");
    let other = ("origin", "https://other.example");
    let asks = ("access-control-request-method", "POST");
    let wants = ("access-control-request-headers", "authorization,content-type");
    let body = r#"{"event":"a"}"#;
    for path in ["/v1/t", "/e/", "/flags/"] {
        let sent = send(&open_door(), path, &[shop], body);
        assert_eq!(
            (sent.status, &sent.headers["access-control-allow-origin"]),
            (200, &"https://shop.example".parse().unwrap())
        );
        let asked = send(&open_door(), &format!("OPTIONS {path}"), &[shop, asks, wants], "");
        assert_eq!((asked.status, &asked.headers["access-control-allow-headers"]), (204, &wants.1.parse().unwrap()));
        for (path, headers) in [(path.to_owned(), vec![other]), (format!("OPTIONS {path}"), vec![other, asks])] {
            let refused = send(&open_door(), &path, &headers, body);
            assert_eq!((refused.status, refused.body["code"].as_str()), (403, Some("origin_refused")), "{path}");
            assert!(refused.lines.is_empty() && !refused.headers.contains_key("access-control-allow-origin"));
        }
    }
}

#[test]
fn no_flag_is_on() {
    let answer = send(&door(FakeIntake::default(), &["k"]), "/flags/?v=2", &[], r#"{"token":"k"}"#);
    assert_eq!((answer.status, &answer.body["flags"]), (200, &json!({})));
}
