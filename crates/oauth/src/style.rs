//! `GET …/style.css`: the one thing that pages load.

use axum::response::IntoResponse;
use chappe_identity::PAGE_STYLE;
use http::header;

pub(super) async fn handler() -> impl IntoResponse {
    let headers =
        [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "public, max-age=3600")];
    (headers, PAGE_STYLE)
}
