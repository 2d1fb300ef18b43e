//! Doors for events as pages of other sites may use them: whom they let in, and what a browser asks before. Does not know what
//! is sent.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::receive::drain;
use crate::web::ApiError;
use crate::web::origin::{self, Origin};

/// How long a browser remembers what it was allowed, in seconds.
const REMEMBERED_S: u32 = 86_400;

pub struct Rules {
    pub allow_origin: Vec<String>,
    /// An error as those who use the door expect it.
    pub error: fn(&ApiError) -> Response,
}

pub async fn check(State(rules): State<Arc<Rules>>, request: Request, next: Next) -> Response {
    let origin = match origin::of(request.headers(), &rules.allow_origin) {
        Origin::Own => return next.run(request).await,
        Origin::Listed(origin) => origin.clone(),
        Origin::Refused(origin) => {
            let error = origin::refused(origin, "send events");
            drain(&mut request.into_body()).await;
            return vary((rules.error)(&error));
        }
    };
    let asks = *request.method() == Method::OPTIONS && request.headers().contains_key("access-control-request-method");
    let mut response = if asks { may(request.headers()) } else { next.run(request).await };
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    response.headers_mut().insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("retry-after"));
    vary(response)
}

/// The answer to a browser that asks what a page may send. Headers mean nothing here that could do harm: all that are asked for.
fn may(asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
    if let Some(wanted) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(REMEMBERED_S));
    response
}

fn vary(mut response: Response) -> Response {
    response.headers_mut().append(header::VARY, HeaderValue::from_static("origin"));
    response
}
