//! A live connection: who may open it, and the loop that reads, writes and pings. What is said is the session's.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::session::{Due, Session};
use crate::serve::Services;
use crate::serve::query::request::{decode, parameters};
use crate::web::origin::{self, Origin};
use crate::web::{Access, ApiError, bearer};

const CONNECTIONS_MAX: i64 = 10_000;
/// Of a frame or message that a client sends.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
const PING_EVERY: Duration = Duration::from_secs(15);
/// A client of which nothing was heard for so long, not even a pong, is gone.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// A client that takes no byte for so long is gone.
const SEND_WITHIN: Duration = Duration::from_secs(30);
const GOING_AWAY: u16 = 1001;
/// The subprotocol that is chosen where a client offers it.
const PROTOCOL: &str = "tidemark";

pub async fn open(
    State(services): State<Arc<Services>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    if let Origin::Refused(origin) = origin::of(&headers, &services.settings.allow_origin) {
        return Err(origin::refused(origin, "open a live connection"));
    }
    let protocols: Vec<HeaderValue> =
        upgrade.as_ref().map(|upgrade| upgrade.requested_protocols().cloned().collect()).unwrap_or_default();
    let protocol = check_key(&services, &headers, query.as_deref().unwrap_or(""), &protocols)?;
    let mut upgrade = upgrade.map_err(|rejection| {
        let help = "Open it as a WebSocket: ws://HOST/v1/live.";
        ApiError::new(rejection.status(), "no_websocket", rejection.body_text(), help)
    })?;
    if services.telemetry.serve.live_connections.get() >= CONNECTIONS_MAX {
        return Err(ApiError::unavailable(format!("there are {CONNECTIONS_MAX} live connections already"), 30));
    }
    if let Some(protocol) = protocol {
        upgrade.set_selected_protocol(protocol);
    }
    let upgrade = upgrade.max_message_size(MESSAGE_BYTES_MAX).max_frame_size(MESSAGE_BYTES_MAX).write_buffer_size(0);
    Ok(upgrade.on_upgrade(move |socket| Connection::new(socket, services).run()))
}

/// The key of the header, of `?key=`, or among the subprotocols. Gives the subprotocol to choose.
fn check_key(
    services: &Services,
    headers: &HeaderMap,
    query: &str,
    protocols: &[HeaderValue],
) -> Result<Option<HeaderValue>, ApiError> {
    let keys = &services.settings.keys;
    let plain = protocols.iter().find(|protocol| *protocol == PROTOCOL).cloned();
    let in_query = parameters(query).filter(|(name, _)| name == "key").map(|(_, value)| decode(value)).last();
    let given = bearer(headers).map(str::to_owned).or(in_query);
    let as_protocol = protocols
        .iter()
        .find(|protocol| keys.any() && protocol.to_str().is_ok_and(|key| keys.allow(Access::Read, Some(key)).is_ok()));
    match as_protocol {
        Some(key) if given.is_none() => Ok(plain.or_else(|| Some(key.clone()))),
        _ => keys.allow(Access::Read, given.as_deref()).map(|()| plain),
    }
}

struct Connection {
    socket: WebSocket,
    services: Arc<Services>,
    session: Session,
    heard: Instant,
}

enum Event {
    Message(Option<Result<Message, axum::Error>>),
    /// Something may have to be sent.
    Due,
    Ping,
    Closing,
}

/// The connection is over.
struct Gone;

impl Connection {
    fn new(socket: WebSocket, services: Arc<Services>) -> Self {
        let session = Session::new(services.live.clone());
        Self { socket, services, session, heard: Instant::now() }
    }

    async fn run(mut self) {
        let mut changed = self.services.live.changed.subscribe();
        let mut closing = self.services.live.closing.subscribe();
        let wake = self.session.wake.clone();
        let mut ping = interval(PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                message = self.socket.recv() => Event::Message(message),
                () = wake.notified() => Event::Due,
                _ = changed.changed() => Event::Due,
                _ = ping.tick() => Event::Ping,
                _ = closing.wait_for(|closing| *closing) => Event::Closing,
            };
            let went_on = match event {
                Event::Message(message) => self.take(message),
                Event::Due => Ok(()),
                Event::Ping => self.ping().await,
                Event::Closing => self.say_good_bye().await,
            };
            if went_on.is_err() || self.send_due().await.is_err() {
                return;
            }
        }
    }

    fn take(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<(), Gone> {
        self.heard = Instant::now();
        match message {
            Some(Ok(Message::Text(text))) => {
                if let Some(topic) = self.session.receive(&text) {
                    let (live, now) = (self.services.live.clone(), self.services.clock.now());
                    tokio::task::spawn_blocking(move || live.refresh_topic(&topic, now));
                }
                Ok(())
            }
            Some(Ok(Message::Binary(_))) => {
                let error =
                    ApiError::bad_request("invalid_message", "binary frames say nothing here", "Send text frames.");
                self.session.fail(None, &error);
                Ok(())
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
            Some(Ok(Message::Close(_)) | Err(_)) | None => Err(Gone),
        }
    }

    async fn ping(&mut self) -> Result<(), Gone> {
        if self.heard.elapsed() > SILENCE_MAX {
            return Err(Gone);
        }
        self.send(Message::Ping(axum::body::Bytes::new())).await
    }

    async fn say_good_bye(&mut self) -> Result<(), Gone> {
        let reason = "the host is stopping".into();
        let _ = self.send(Message::Close(Some(CloseFrame { code: GOING_AWAY, reason }))).await;
        Err(Gone)
    }

    async fn send_due(&mut self) -> Result<(), Gone> {
        while let Some(due) = self.session.due() {
            match due {
                Due::Send(text) => {
                    let telemetry = &self.services.telemetry.serve;
                    telemetry.live_frames.inc();
                    telemetry.live_bytes.inc_by(text.len() as u64);
                    self.send(Message::Text(text)).await?;
                }
                Due::Encode(topic) => {
                    let encoded = tokio::task::spawn_blocking(move || topic.snapshot());
                    // Nothing to encode: the topic was just about to change, and tells when it has.
                    if encoded.await.map_err(|_| Gone)?.is_none() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    async fn send(&mut self, message: Message) -> Result<(), Gone> {
        let sent = timeout(SEND_WITHIN, self.socket.send(message)).await;
        sent.map_err(|_| Gone)?.map_err(|_| Gone)
    }
}
