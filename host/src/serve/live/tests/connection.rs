//! The protocol over real connections: who is let in, how many, and what a client that does not read costs.

use super::*;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::serve::{Services, Settings, listen::listen, router, tests::services};
use crate::store::StateReader as _;
use crate::web::Keys;

#[test]
fn over_a_real_connection() {
    let world = Arc::new(World::new());
    world.add([Event { at: NOON, text: ["x", "US", "mobile"], amount: None, user: 1 }]);
    let keys = Keys { read: vec!["r".into()], write: vec!["w".into()] };
    let allow_origin = vec!["https://elsewhere.example".to_owned()];
    let services = services(world.clone(), Settings { keys, allow_origin, ..Settings::default() });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let app = router(services.clone(), axum::Router::new(), true);
        let server = tokio::spawn(listen(listener, app, services.telemetry.clone(), async { drop(stopped.await) }));
        let bearer = "Authorization: Bearer r\r\n";
        let cases = [
            ("".to_owned(), "401"),
            ("Authorization: Bearer w\r\n".to_owned(), "401"),
            ("Sec-WebSocket-Protocol: tidemark, w\r\n".to_owned(), "401"),
            (format!("{bearer}Origin: https://evil.example\r\n"), "403"),
            (format!("{bearer}Origin: null\r\n"), "403"),
            (format!("{bearer}Origin: http://{address}\r\n"), "101"),
            (format!("{bearer}Origin: https://elsewhere.example\r\n"), "101"),
            ("Sec-WebSocket-Protocol: tidemark, r\r\n".to_owned(), "101"),
            ("Sec-WebSocket-Protocol: r\r\n".to_owned(), "101"),
        ];
        for (headers, status) in cases {
            let (_, head) = wire::open(address, &headers).await;
            assert_eq!(head.split(' ').nth(1), Some(status), "{headers}");
            let chosen = head.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
            assert_eq!(chosen.is_some(), status == "101" && headers.contains("Protocol"), "{headers}");
        }
        let (mut stream, _) = wire::open(address, bearer).await;
        wire::send(&mut stream, "nonsense").await;
        assert!(wire::receive(&mut stream).await.1.contains("invalid_json"));
        wire::send(&mut stream, &subscribe("a", "events", &["country"]).to_string()).await;
        let snapshot = wire::receive(&mut stream).await.1;
        assert!(snapshot.starts_with("{\"op\":\"snapshot\",\"id\":\"a\",\"seq\":1,"), "{snapshot}");
        world.add([Event { at: NOON, text: ["x", "DE", "mobile"], amount: None, user: 1 }]);
        let live = services.live.clone();
        tokio::task::spawn_blocking(move || live.refresh(NOON + 30_000)).await.unwrap();
        let delta: Value = serde_json::from_str(&wire::receive(&mut stream).await.1).unwrap();
        assert_eq!((&delta["op"], &delta["new_series"][0]["labels"]["country"]), (&json!("delta"), &json!("DE")));
        stop.send(()).unwrap();
        services.live.close();
        assert_eq!(wire::receive(&mut stream).await.0, 8, "a close frame");
        drop(stream);
        server.await.unwrap();
    });
}

/// Serves, and lets `client` have its way.
fn served<F: Future<Output = ()>>(services: &Arc<Services>, client: impl FnOnce(std::net::SocketAddr) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = router(services.clone(), axum::Router::new(), true);
        let server = tokio::spawn(listen(listener, app, services.telemetry.clone(), std::future::pending()));
        client(address).await;
        server.abort();
    });
}

#[test]
fn beyond_the_limit_of_connections() {
    let services = services(Arc::new(World::new()), Settings { connections_max: 2, ..Settings::default() });
    served(&services, async |address| {
        let status = |head: &str| head.split(' ').nth(1).map(str::to_owned);
        let (first, head) = wire::open(address, "").await;
        assert_eq!(status(&head).as_deref(), Some("101"));
        let (_second, _) = wire::open(address, "").await;
        let (_, head) = wire::open(address, "").await;
        assert_eq!(status(&head).as_deref(), Some("503"));
        assert!(head.contains("\r\nretry-after: 30\r\n"), "{head}");
        assert_eq!(services.telemetry.serve.live_refused.get(), 1);
        drop(first);
        let freed = async {
            while services.telemetry.serve.live_connections.get() == 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), freed).await.unwrap();
        assert_eq!(status(&wire::open(address, "").await.1).as_deref(), Some("101"));
    });
}

/// Clients that do not read, at whatever step, delay nobody and are queued nothing.
#[test]
fn who_does_not_read_delays_nobody() {
    let world = Arc::new(World::new());
    let many = ["US", "DE", "FR", "BR", "JP"];
    let event = |at: Millis, country| Event { at, text: ["x", country, "mobile"], amount: Some(1.0), user: 1 };
    world.add((0..1_439).flat_map(|minute| many.map(|country| event(NOON - minute * MINUTE_MS, country))));
    let services = services(world.clone(), Settings::default());
    served(&services, async |address| {
        let ask = json!({"op": "subscribe", "id": "a", "metric": "events", "by": ["country"]}).to_string();
        // One says nothing at all, one stops amid its request, one amid a frame, and some never take their large answers.
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut half = TcpStream::connect(address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut half, b"GET /v1/live HTTP/1.1\r\nHost: a\r\n").await.unwrap();
        let (mut torn, _) = wire::open(address, "").await;
        tokio::io::AsyncWriteExt::write_all(&mut torn, &[0x81, 0xfe, 1]).await.unwrap();
        let mut deaf = Vec::new();
        for _ in 0..3 {
            let (mut stream, _) = wire::open(address, "").await;
            for number in 0..40 {
                wire::send(&mut stream, &ask.replace("\"a\"", &format!("\"{number}\""))).await;
            }
            deaf.push(stream);
        }
        let (mut reads, _) = wire::open(address, "").await;
        wire::send(&mut reads, &ask).await;
        let snapshot = wire::receive(&mut reads).await.1;
        assert!(snapshot.len() > 70_000 && snapshot.starts_with("{\"op\":\"snapshot\""), "{}", snapshot.len());
        assert!(serde_json::from_str::<Value>(&snapshot).is_ok());
        for round in 0..20 {
            world.add([event(NOON, "US")]);
            let live = services.live.clone();
            tokio::task::spawn_blocking(move || live.refresh(NOON + round)).await.unwrap();
            let delta = wire::receive(&mut reads).await.1;
            assert!(delta.starts_with("{\"op\":\"delta\"") && delta.len() < 200, "{delta}");
        }
        // The deaf one finds the newest state when it listens at last: snapshots, not twenty deltas of each.
        let mut told = 0;
        while told < 40 {
            let (kind, text) = wire::receive(&mut deaf[0]).await;
            assert_eq!(kind, 1);
            let frame: Value = serde_json::from_str(&text).unwrap();
            told += usize::from(frame["seq"] == world.seq());
        }
    });
}
