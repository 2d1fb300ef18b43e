//! PostHog's capture API: how its clients pack what they send, an event to a line, answers as they expect them. Knows no doors
//! and no limits but that of a body.

use std::borrow::Cow;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::json;
use url::form_urlencoded;

use super::json::{self, Writer, members, members_of};
use super::name::snake_case;
use super::{Delivery, Mapping};
use crate::ingest::Receipt;
use crate::ingest::body::{self, Encoding};
use crate::ingest::receive::unreadable;
use crate::time::Millis;
use crate::web::ApiError;

/// How success is said: one was there first, the other came with the newer paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Success {
    One,
    Ok,
}

pub const PATHS: &[(&str, Success)] = &[
    ("/batch", Success::Ok),
    ("/batch/", Success::Ok),
    ("/i/v0/e", Success::Ok),
    ("/i/v0/e/", Success::Ok),
    // What its Python client sends of language models goes a way of its own.
    ("/i/v0/ai/batch/", Success::Ok),
    ("/capture", Success::One),
    ("/capture/", Success::One),
    ("/e", Success::One),
    ("/e/", Success::One),
];

/// Where its clients ask for feature flags: there are none.
pub const FLAGS_PATHS: &[&str] = &["/flags", "/flags/", "/decide", "/decide/"];

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What stands in the address: `compression=gzip-js&_=1700000000000`.
#[derive(Default)]
struct Query {
    compression: String,
    sent_at: Option<Millis>,
}

impl Query {
    fn read(query: &str) -> Self {
        let mut read = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "compression" => read.compression = value.into_owned(),
                "_" => read.sent_at = value.parse().ok().filter(|at| *at > 0),
                _ => {}
            }
        }
        read
    }
}

/// The JSON in a body: its clients send it plain, compressed, as the field `data` of a form, in base64, and combined.
pub fn unpack<'a>(body: &'a [u8], query: &str, bytes_max: usize) -> Result<Cow<'a, [u8]>, ApiError> {
    let mut compression = Query::read(query).compression;
    let mut data = Cow::Borrowed(body);
    if is_form(body) {
        for (name, value) in form_urlencoded::parse(body) {
            match &*name {
                "data" if value.starts_with(['{', '[']) => data = Cow::Owned(value.into_owned().into_bytes()),
                // Not every client escapes the plus signs of base64.
                "data" => data = Cow::Owned(value.replace(' ', "+").into_bytes()),
                "compression" => compression = value.into_owned(),
                _ => {}
            }
        }
    }
    if compression.starts_with("lz") {
        let help = "Leave the client's compression at gzip, or switch it off.";
        return Err(ApiError::bad_request("invalid_encoding", format!("`{compression}` is not read here"), help));
    }
    data = gunzip(data, bytes_max)?;
    let first = data.iter().find(|byte| !byte.is_ascii_whitespace());
    if first.is_some_and(|byte| !matches!(byte, b'{' | b'['))
        && let Ok(decoded) = BASE64.decode(data.trim_ascii())
    {
        data = gunzip(Cow::Owned(decoded), bytes_max)?;
    }
    Ok(data)
}

fn is_form(body: &[u8]) -> bool {
    body.first().is_some_and(u8::is_ascii_alphabetic)
        && (body.starts_with(b"data=") || memchr::memmem::find(body, b"&data=").is_some())
}

fn gunzip(data: Cow<'_, [u8]>, bytes_max: usize) -> Result<Cow<'_, [u8]>, ApiError> {
    if !data.starts_with(GZIP_MAGIC) {
        return Ok(data);
    }
    let plain = body::decompressed(&data, Encoding::Gzip, bytes_max).map_err(|error| unreadable(&error))?;
    Ok(plain.map_or(data, Cow::Owned))
}

/// Adds a line for each event of the body: a batch, a list, or one.
pub fn map(delivery: &Delivery<'_>, out: &mut Mapping) -> Result<(), ApiError> {
    let body = delivery.body;
    let sent_at = Query::read(delivery.query).sent_at;
    if body.trim_start().starts_with('[') {
        let all = json::elements(body, |raw| event(raw, Key::Own, sent_at, delivery, out));
        return all.map_err(|error| super::no_json(&error))?;
    }
    let names = ["api_key", "token", "sent_at", "batch"];
    let [key, token, sent, batch] = members(body, names).map_err(|error| super::no_json(&error))?;
    let sent_at = sent.and_then(json::time).or(sent_at);
    let key = key.or(token);
    let shared = if key.is_some() { Key::Checked } else { Key::Own };
    if key.is_some() {
        delivery.check_key(key)?;
    }
    match batch {
        None => event(body, shared, sent_at, delivery, out),
        Some(batch) => json::elements(batch, |raw| event(raw, shared, sent_at, delivery, out)).unwrap_or_else(|_| {
            let help = "Send {\"api_key\":\"…\",\"batch\":[{\"event\":\"…\",\"distinct_id\":\"…\"}]}.";
            Err(ApiError::bad_request("invalid_payload", "`batch` is no array", help))
        }),
    }
}

/// Where the key of an event is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    /// What holds the event had one.
    Checked,
    /// With the event itself.
    Own,
}

fn event(
    raw: &str,
    key: Key,
    sent: Option<Millis>,
    delivery: &Delivery<'_>,
    out: &mut Mapping,
) -> Result<(), ApiError> {
    let names = ["event", "distinct_id", "uuid", "timestamp", "offset", "properties", "api_key", "token"];
    let Ok([event, who, id, timestamp, offset, properties, own_key, own_token]) = members(raw, names) else {
        if key == Key::Own {
            delivery.check_key(None)?;
        }
        out.lines.no_event(raw);
        return out.check_size();
    };
    let of_client = ["token", "distinct_id", "$insert_id", "$ignore_sent_at"];
    let [token, distinct_id, insert_id, ignore_sent_at] = members_of(properties, of_client);
    if key == Key::Own {
        delivery.check_key(own_key.or(own_token).or(token))?;
    }
    let sent = sent.filter(|_| ignore_sent_at != Some("true"));
    let lines = &mut out.lines;
    lines.begin();
    if let Some(name) = event.and_then(json::text).filter(|name| !name.is_empty()) {
        lines.text("type", &kind(&name));
    }
    match offset
        .and_then(|offset| offset.parse::<f64>().ok())
        .filter(|offset| offset.is_finite() && timestamp.is_none())
    {
        // Newer clients for browsers say how long ago it was.
        Some(offset) => lines.raw("ts", Some(&delivery.arrival.saturating_sub(offset as Millis).to_string())),
        None => lines.time(timestamp, sent, delivery.arrival),
    }
    let who = who.and_then(json::identity).or_else(|| json::identity(distinct_id?));
    lines.raw("user_id", who.as_deref());
    lines.raw("id", id.and_then(json::identity).or_else(|| json::identity(insert_id?)).as_deref());
    context(properties, lines);
    lines.raw("props", properties);
    lines.end();
    out.check_size()
}

fn context(properties: Option<&str>, lines: &mut Writer) {
    let names = ["$current_url", "$referrer", "$locale", "$browser_language", "$ip", "$raw_user_agent", "$user_agent"];
    let [url, referrer, locale, language, ip, user_agent, other_user_agent] = members_of(properties, names);
    lines.raw("url", url);
    // It says so where there was none.
    lines.raw("referrer", referrer.filter(|referrer| *referrer != "\"$direct\""));
    lines.raw("locale", locale.or(language));
    lines.raw("ip", ip);
    lines.raw("user_agent", user_agent.or(other_user_agent));
}

/// Its own names stand for what other APIs have calls for.
fn kind(name: &str) -> String {
    match name {
        "$pageview" | "$screen" => "page_view".into(),
        "$identify" => "identify".into(),
        "$groupidentify" => "group".into(),
        "$create_alias" => "alias".into(),
        _ => snake_case(name),
    }
}

pub fn answer(receipt: &Receipt, success: Success) -> Response {
    let status = match success {
        Success::One => json!(1),
        Success::Ok => json!("Ok"),
    };
    match super::errors(receipt) {
        None => Json(json!({"status": status})).into_response(),
        Some(errors) => Json(json!({"status": status, "rejected": receipt.rejected, "errors": errors})).into_response(),
    }
}

/// No flag is on.
pub fn no_flags() -> Response {
    let nothing = json!({
        "flags": {},
        "featureFlags": {},
        "featureFlagPayloads": {},
        "errorsWhileComputingFlags": false,
        "supportedCompression": ["gzip", "gzip-js"],
        "sessionRecording": false,
        "surveys": false,
    });
    Json(nothing).into_response()
}

pub fn error(error: &ApiError) -> Response {
    let (kind, how) = match error.status {
        StatusCode::UNAUTHORIZED => ("authentication_error", ": send it as `api_key`"),
        status if status.is_server_error() => ("server_error", ""),
        StatusCode::TOO_MANY_REQUESTS => ("throttled_error", ""),
        _ => ("validation_error", ""),
    };
    let detail = format!("{}{how}", error.message);
    let body = Json(json!({"type": kind, "code": error.code, "detail": detail, "attr": null}));
    super::with_retry_after((error.status, body).into_response(), error)
}
