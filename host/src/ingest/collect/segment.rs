//! Segment's HTTP tracking API: a call becomes a line, an answer is as its clients expect it. Knows no doors and no limits.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::json::{self, Writer, members, members_of};
use super::name::snake_case;
use super::{Delivery, Mapping};
use crate::ingest::Receipt;
use crate::web::ApiError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Track,
    Page,
    Screen,
    Identify,
    Group,
    Alias,
}

/// `None`: many calls, each of which says what it is. The short ones are what Segment's clients for browsers and phones ask for.
pub const PATHS: &[(&str, Option<Call>)] = &[
    ("/v1/track", Some(Call::Track)),
    ("/v1/page", Some(Call::Page)),
    ("/v1/screen", Some(Call::Screen)),
    ("/v1/identify", Some(Call::Identify)),
    ("/v1/group", Some(Call::Group)),
    ("/v1/alias", Some(Call::Alias)),
    ("/v1/batch", None),
    ("/v1/import", None),
    ("/v1/t", Some(Call::Track)),
    ("/v1/p", Some(Call::Page)),
    ("/v1/s", Some(Call::Screen)),
    ("/v1/i", Some(Call::Identify)),
    ("/v1/g", Some(Call::Group)),
    ("/v1/a", Some(Call::Alias)),
    ("/v1/b", None),
];

impl Call {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "track" => Self::Track,
            "page" => Self::Page,
            "screen" => Self::Screen,
            "identify" => Self::Identify,
            "group" => Self::Group,
            "alias" => Self::Alias,
            _ => return None,
        })
    }
}

/// What is said once for all calls of a body.
struct Envelope<'a> {
    sent_at: Option<&'a str>,
    context: Context<'a>,
}

#[derive(Clone, Copy, Default)]
struct Context<'a> {
    ip: Option<&'a str>,
    user_agent: Option<&'a str>,
    locale: Option<&'a str>,
    url: Option<&'a str>,
    referrer: Option<&'a str>,
}

impl<'a> Context<'a> {
    fn read(context: Option<&'a str>) -> Self {
        let [ip, user_agent, locale, page] = members_of(context, ["ip", "userAgent", "locale", "page"]);
        let [url, referrer] = members_of(page, ["url", "referrer"]);
        Self { ip, user_agent, locale, url, referrer }
    }
}

/// Adds a line for each call of the body.
pub fn map(delivery: &Delivery<'_>, call: Option<Call>, out: &mut Mapping) -> Result<(), ApiError> {
    let body = delivery.body;
    let names = ["writeKey", "sentAt", "context", "batch"];
    let [key, sent_at, context, batch] = members(body, names).map_err(|error| super::no_json(&error))?;
    delivery.check_key(key)?;
    if call.is_some() {
        let envelope = Envelope { sent_at, context: Context::default() };
        event(body, call, &envelope, delivery, &mut out.lines);
        return out.check_size();
    }
    let envelope = Envelope { sent_at, context: Context::read(context) };
    let all = json::elements(batch.unwrap_or("null"), |raw| {
        event(raw, None, &envelope, delivery, &mut out.lines);
        out.check_size()
    });
    all.unwrap_or_else(|_| {
        let help = "Send {\"batch\":[{\"type\":\"track\",\"event\":\"…\",\"userId\":\"…\"}]}.";
        Err(ApiError::bad_request("invalid_request", "`batch` is missing or no array", help))
    })
}

fn event(raw: &str, call: Option<Call>, envelope: &Envelope<'_>, delivery: &Delivery<'_>, out: &mut Writer) {
    let names = [
        "type",
        "event",
        "userId",
        "anonymousId",
        "messageId",
        "timestamp",
        "sentAt",
        "context",
        "properties",
        "traits",
        "name",
        "groupId",
        "previousId",
    ];
    let Ok([kind, event, user, anonymous, id, timestamp, sent_at, context, properties, traits, name, group, previous]) =
        members(raw, names)
    else {
        return out.no_event(raw);
    };
    // A batch's element without a type is a track call where it names an event.
    let kind = kind.or(event.map(|_| "\"track\""));
    let call = call.or_else(|| Call::named(&json::text(kind?)?));
    let context = Context::read(context);
    let is_view = matches!(call, Some(Call::Page | Call::Screen));
    let [url, referrer] = members_of(properties.filter(|_| is_view), ["url", "referrer"]);
    out.begin();
    let named = event.and_then(json::text).filter(|name| !name.is_empty()).map(|name| snake_case(&name));
    match call {
        Some(Call::Track) => named.iter().for_each(|name| out.text("type", name)),
        Some(Call::Page | Call::Screen) => out.text("type", "page_view"),
        Some(Call::Identify) => out.text("type", "identify"),
        Some(Call::Group) => out.text("type", "group"),
        Some(Call::Alias) => out.text("type", "alias"),
        None => {}
    }
    out.time(timestamp, envelope.sent_at.or(sent_at).and_then(json::time), delivery.arrival);
    let who = user.and_then(json::identity).or_else(|| json::identity(anonymous?));
    out.raw("user_id", who.as_deref());
    out.raw("id", id.and_then(json::identity).as_deref());
    out.raw("url", context.url.or(url).or(envelope.context.url));
    out.raw("referrer", context.referrer.or(referrer).or(envelope.context.referrer));
    out.raw("locale", context.locale.or(envelope.context.locale));
    out.raw("ip", context.ip.or(envelope.context.ip));
    out.raw("user_agent", context.user_agent.or(envelope.context.user_agent));
    out.raw("name", name.filter(|_| is_view));
    out.raw("group_id", group);
    out.raw("previous_id", previous);
    out.raw("props", properties.or(traits));
    out.end();
}

pub fn answer(receipt: &Receipt) -> Response {
    match super::errors(receipt) {
        None => Json(json!({"success": true})).into_response(),
        Some(errors) => Json(json!({"success": true, "rejected": receipt.rejected, "errors": errors})).into_response(),
    }
}

/// `code` and `message` are what `analytics-python` reads.
pub fn error(error: &ApiError) -> Response {
    let how = match error.status {
        StatusCode::UNAUTHORIZED => ": send it as the user name of Basic authentication, or as `writeKey`",
        _ => "",
    };
    let message = format!("{}{how}", error.message);
    let body = Json(json!({"success": false, "code": error.code, "message": message}));
    super::with_retry_after((error.status, body).into_response(), error)
}
