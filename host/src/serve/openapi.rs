//! `GET /openapi.json`: the description in `docs/`, as it is. Knows no route: a test from outside holds the two together.

use axum::http::header;
use axum::response::{IntoResponse, Response};

const DOCUMENT: &str = include_str!("../../../docs/openapi.json");

pub async fn describe() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}
