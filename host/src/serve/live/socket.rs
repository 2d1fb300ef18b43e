//! A live connection: who may open it, and the loop that reads, writes and pings. What is said is the session's.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::Response;
use hyper::upgrade::OnUpgrade;
use tokio::time::{MissedTickBehavior, interval};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::session::{Due, Session};
use super::stream::{Gone, Stream, handshake};
use crate::serve::Services;
use crate::serve::query::request::{decode, parameters};
use crate::web::origin::{self, Origin};
use crate::web::{Access, ApiError, bearer};

const PING_EVERY: Duration = Duration::from_secs(15);
/// A client of which nothing was heard for so long, not even a pong, is gone.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// The subprotocol that is chosen where a client offers it.
const PROTOCOL: &str = "tidemark";

pub async fn open(
    State(services): State<Arc<Services>>,
    mut request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let headers = request.headers();
    if let Origin::Refused(origin) = origin::of(headers, &services.settings.allow_origin) {
        return Err(origin::refused(origin, "open a live connection"));
    }
    let protocol = check_key(&services, headers, request.uri().query().unwrap_or(""), &protocols(headers))?;
    let answer = handshake(&request).map_err(|message| {
        let help = "Open it as a WebSocket: ws://HOST/v1/live.";
        ApiError::new(StatusCode::BAD_REQUEST, "no_websocket", message, help)
    });
    let mut answer = answer?;
    let max = services.settings.connections_max;
    if services.telemetry.serve.live_connections.get() >= i64::from(max) {
        services.telemetry.serve.live_refused.inc();
        return Err(ApiError::unavailable(format!("there are {max} live connections already"), 30));
    }
    if let Some(protocol) = protocol {
        answer.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let upgrade = upgrade.ok_or_else(|| ApiError::internal("a connection that cannot become a WebSocket"))?;
    // Counted from here on: who comes at the same moment is too many, not one too many.
    let session = Session::new(services.live.clone());
    let connection = services.clone();
    services.threads.spawn(async move {
        if let Ok(upgraded) = upgrade.await
            && let Ok(stream) = Stream::open(upgraded).await
        {
            Connection { stream, services: connection, session }.run().await;
        }
    });
    Ok(answer)
}

/// What the client offers, in its order.
fn protocols(headers: &HeaderMap) -> Vec<HeaderValue> {
    let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    offers.flat_map(|value| value.split(',')).filter_map(|one| HeaderValue::from_str(one.trim()).ok()).collect()
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
    stream: Stream,
    services: Arc<Services>,
    session: Session,
}

enum Event {
    Message(Result<Message, Gone>),
    /// Something may have to be sent.
    Due,
    Ping,
    Closing,
}

impl Connection {
    async fn run(mut self) {
        let mut changed = self.services.live.changed.subscribe();
        let mut closing = self.services.live.closing.subscribe();
        let wake = self.session.wake.clone();
        let mut ping = interval(PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                biased;
                _ = closing.wait_for(|closing| *closing) => Event::Closing,
                // What was said while something was being sent is heard before the silence is judged.
                message = self.stream.next() => Event::Message(message),
                () = wake.notified() => Event::Due,
                _ = changed.changed() => Event::Due,
                _ = ping.tick() => Event::Ping,
            };
            let went_on = match event {
                Event::Message(message) => message.and_then(|message| self.take(message)),
                Event::Due => Ok(()),
                Event::Ping => self.ping().await,
                Event::Closing => self.say_good_bye().await,
            };
            if went_on.is_err() || self.send_due().await.is_err() {
                return;
            }
        }
    }

    fn take(&mut self, message: Message) -> Result<(), Gone> {
        match message {
            Message::Text(text) => {
                if let Some(topic) = self.session.receive(&text) {
                    let (live, now) = (self.services.live.clone(), self.services.clock.now());
                    tokio::spawn(async move {
                        let _turn = live.turns.acquire().await;
                        let refresh = {
                            let live = live.clone();
                            move || live.refresh_topic(&topic, now)
                        };
                        // It says itself when it fails.
                        let _ = tokio::task::spawn_blocking(refresh).await;
                    });
                }
                Ok(())
            }
            Message::Binary(_) => {
                let error =
                    ApiError::bad_request("invalid_message", "binary frames say nothing here", "Send text frames.");
                self.session.fail(None, &error);
                Ok(())
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
            Message::Close(_) => Err(Gone),
        }
    }

    async fn ping(&mut self) -> Result<(), Gone> {
        if self.stream.heard.elapsed() > SILENCE_MAX {
            return Err(Gone);
        }
        self.stream.ping().await
    }

    async fn say_good_bye(&mut self) -> Result<(), Gone> {
        let _ = self.stream.close(CloseFrame { code: CloseCode::Away, reason: "the host is stopping".into() }).await;
        Err(Gone)
    }

    async fn send_due(&mut self) -> Result<(), Gone> {
        while let Some(due) = self.session.due() {
            match due {
                Due::Send(frame) => {
                    let telemetry = &self.services.telemetry.serve;
                    telemetry.live_frames.inc();
                    telemetry.live_bytes.inc_by(frame.len() as u64);
                    self.stream.send(&frame).await?;
                }
                Due::Encode(topic, wanted) => {
                    // A few at a time: of many that come at once and ask the same, all but the first find it done.
                    let turn = self.services.live.turns.acquire().await;
                    if topic.has(wanted) {
                        continue;
                    }
                    let encoded = tokio::task::spawn_blocking(move || topic.encode(wanted)).await;
                    drop(turn);
                    // Nothing to encode: the topic was just about to change, and wakes us when it has.
                    if !encoded.map_err(|_| Gone)? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}
