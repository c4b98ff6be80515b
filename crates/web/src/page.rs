//! Pages for people's browsers: HTML that loads nothing, and runs nothing but what this server wrote.

use axum::response::{Html, IntoResponse, Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, StatusCode, header};
use ring::digest::{SHA256, digest};

const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'";

/// A page of this server's own.
#[derive(Clone, Debug)]
pub struct Page {
    /// The HTTP status.
    pub status: StatusCode,
    /// A whole HTML document.
    pub html: String,
}

impl Page {
    /// The page with a script at its end, the only one that may run.
    pub fn with_script(self, script: &'static str) -> Response {
        let hash = STANDARD.encode(digest(&SHA256, script.as_bytes()));
        let policy = format!("{POLICY}; script-src 'sha256-{hash}'");
        let html = self.html.replace("</body>", &format!("<script>{script}</script></body>"));
        let mut response = Self { html, ..self }.into_response();
        if let Ok(policy) = HeaderValue::from_str(&policy) {
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        response
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let mut response = (self.status, Html(self.html)).into_response();
        for (name, value) in [
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::X_FRAME_OPTIONS, "DENY"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
