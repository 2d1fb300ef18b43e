use std::sync::Arc;

use axum::extract::State;

use crate::serve::Services;
use crate::web::ApiError;

pub async fn open(State(_services): State<Arc<Services>>) -> ApiError {
    ApiError::unavailable("not yet", 1)
}
