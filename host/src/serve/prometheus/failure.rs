//! What went wrong, in the shape and with the statuses of Prometheus. Knows no routes.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::serve::query::leaf::TOO_MANY_POINTS;
use crate::web::ApiError;

/// `{"status":"error","errorType","error"}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub status: StatusCode,
    pub kind: &'static str,
    pub message: String,
}

impl Failure {
    pub fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into() }
    }

    /// The request cannot be understood.
    pub fn bad_data(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_data", message)
    }

    pub fn parameter(name: &str, message: impl std::fmt::Display) -> Self {
        Self::bad_data(format!("invalid parameter \"{name}\": {message}"))
    }

    /// It is understood, and cannot be answered.
    pub fn execution(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "execution", message)
    }

    pub fn timeout() -> Self {
        let message = "query timed out in expression evaluation";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", message)
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let message = format!("{}. {}", error.message, error.help);
        match (error.status, error.code) {
            (_, TOO_MANY_POINTS) => Self::execution(message),
            (_, "step_too_small") => {
                Self::execution(format!("{}: select with `__step__=\"1h\"`, or a later start", error.message))
            }
            (StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND, _) => Self::bad_data(message),
            (StatusCode::UNAUTHORIZED, _) => Self::new(error.status, "unauthorized", error.message),
            (StatusCode::SERVICE_UNAVAILABLE, _) => Self::new(error.status, "unavailable", error.message),
            (status, _) => Self::new(status, "internal", error.message),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = json!({"status": "error", "errorType": self.kind, "error": self.message});
        let mut response = (self.status, axum::Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let asks = HeaderValue::from_static("Basic realm=\"tidemark\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, asks);
        }
        response
    }
}
