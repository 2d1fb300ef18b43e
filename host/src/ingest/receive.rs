//! A request's body under limits: what all doors for events share. Does not know what a body says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;

use super::body::{BodyError, Encoding};
use super::{Client, Refusal};
use crate::engine::decode::PADDING_BYTES;
use crate::web::{ApiError, Network, Peer, client_address};

/// A client that sends nothing for so long is given up.
const BODY_IDLE: Duration = Duration::from_secs(30);
/// What is refused is read and dropped up to here, before the answer.
const DRAIN_BYTES_MAX: usize = 256 * 1024 * 1024;
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
/// Bodies up to this size are decompressed where they are received, larger ones on a thread of their own.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;
const USER_AGENT_BYTES_MAX: usize = 1_024;
const RETRY_AFTER_S: u32 = 1;

/// Reads what is left of a body that is refused: a client that is still sending when the connection closes would not see the
/// answer.
pub async fn drain(body: &mut Body) {
    let rest = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, |data| data.len());
            if bytes > DRAIN_BYTES_MAX {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_WITHIN, rest).await;
}

/// Who sent a request: fills `ip` and `user_agent` where an event brings none.
pub fn client(parts: &Parts, trusted_proxies: &[Network]) -> Client {
    let peer: Option<SocketAddr> = parts.extensions.get::<Peer>().map(|peer| peer.0);
    Client {
        address: client_address(peer, &parts.headers, trusted_proxies),
        user_agent: user_agent(&parts.headers).map(Arc::from),
    }
}

/// Bytes held for one request, given back when it is answered.
pub struct Held<'a> {
    pub all: &'a AtomicUsize,
    pub most: usize,
    pub bytes: usize,
}

impl Held<'_> {
    pub fn take(&mut self, bytes: usize) -> Result<(), ApiError> {
        let before = self.all.fetch_add(bytes, Ordering::AcqRel);
        self.bytes += bytes;
        // A lone request is always let in, however large.
        if before + bytes > self.most && before + bytes > self.bytes {
            return Err(busy("too many bodies are being taken at the moment", RETRY_AFTER_S));
        }
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

pub async fn receive(body: &mut Body, bytes_max: usize, held: &mut Held<'_>) -> Result<Vec<u8>, ApiError> {
    let declared = body.size_hint().exact().unwrap_or(0);
    if declared > bytes_max as u64 {
        return Err(too_large(bytes_max));
    }
    held.take(declared as usize)?;
    let mut raw = Vec::with_capacity(declared as usize + PADDING_BYTES);
    loop {
        let frame = tokio::time::timeout(BODY_IDLE, body.frame()).await.map_err(|_| {
            let message = format!("nothing of the body came for {} s", BODY_IDLE.as_secs());
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", message, "Nothing was taken; send it again.")
        })?;
        let Some(frame) = frame else { return Ok(raw) };
        let frame = frame.map_err(|error| {
            ApiError::bad_request(
                "broken_body",
                format!("the body broke off: {error}"),
                "Nothing was taken; send it again.",
            )
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if raw.len() + data.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        held.take((raw.len() + data.len()).saturating_sub(held.bytes))?;
        raw.extend_from_slice(&data);
    }
}

pub fn encoding(headers: &HeaderMap) -> Result<Encoding, ApiError> {
    let given = headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or("");
    match given.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(Encoding::Plain),
        "gzip" | "x-gzip" => Ok(Encoding::Gzip),
        "zstd" => Ok(Encoding::Zstd),
        other => Err(unsupported(
            format!("the content encoding `{other}` is not read here"),
            "Send `gzip`, `zstd`, or none.",
        )),
    }
}

fn user_agent(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::USER_AGENT)?.to_str().ok()?;
    (!text.is_empty()).then(|| &text[..text.len().min(USER_AGENT_BYTES_MAX)])
}

pub fn unreadable(error: &BodyError) -> ApiError {
    match error {
        BodyError::TooLarge { bytes_max } => too_large(*bytes_max),
        BodyError::Corrupt { .. } => ApiError::bad_request(
            "invalid_encoding",
            error.to_string(),
            "Nothing was taken. Check what `Content-Encoding` says.",
        ),
        BodyError::Empty => ApiError::bad_request(
            "empty_body",
            error.to_string(),
            "Send one JSON object a line, an array of objects, or one.",
        ),
    }
}

pub fn unsupported(message: String, help: &str) -> ApiError {
    ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message, help)
}

pub fn too_large(bytes_max: usize) -> ApiError {
    let message = format!("the body is larger than {bytes_max} bytes");
    let help = "Nothing was taken. Send smaller batches, or start the host with a larger --body-bytes-max.";
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message, help)
}

pub fn busy(message: impl Into<String>, retry_after_s: u32) -> ApiError {
    let help = "Nothing was taken; send it again after the time in Retry-After.";
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "busy", message, help).retry_after(retry_after_s)
}

pub fn refused(refusal: Refusal) -> ApiError {
    let message = refusal.to_string();
    match refusal {
        Refusal::Busy { retry_after_s } => busy(message, retry_after_s),
        Refusal::Unavailable { retry_after_s, .. } => ApiError::unavailable(message, retry_after_s),
    }
}
