//! `/_matrix/media_proxy/unstable`: media, scanned before they are given out (MSC1453).

mod asking;
mod download;
mod download_encrypted;
mod public_key;
mod refusal;
mod scan;
mod scan_encrypted;
mod thumbnail;

use axum::Json;
use chappe_scanner::Error;
use chappe_web::{Auth, Routes};
use http::Method;
use ruma::OwnedServerName;
use serde_json::{Value, json};

use self::refusal::Result;
use crate::Api;

pub(crate) fn routes() -> Routes<Api> {
    let at = |path: &str| format!("/_matrix/media_proxy/unstable/{path}");
    let (get, post) = (&Method::GET, &Method::POST);
    // Whoever brings no token is treated as by the media endpoints without log-in.
    let auth = Auth::TokenOptional;
    Routes::new()
        .at(get, &at("download/{server_name}/{media_id}"), auth, download::handler)
        .at(post, &at("download_encrypted"), auth, download_encrypted::handler)
        .at(get, &at("public_key"), Auth::None, public_key::handler)
        .at(get, &at("scan/{server_name}/{media_id}"), auth, scan::handler)
        .at(post, &at("scan_encrypted"), auth, scan_encrypted::handler)
        .at(get, &at("thumbnail/{server_name}/{media_id}"), auth, thumbnail::handler)
}

/// A medium in the path: its server and its id.
type Medium = (OwnedServerName, String);

/// A verdict for those who do not want the medium itself.
fn said<T>(outcome: Result<T, Error>) -> Result<Json<Value>> {
    match outcome {
        Ok(_) => Ok(Json(json!({ "clean": true, "info": "the file is clean" }))),
        Err(error @ (Error::NotClean(_) | Error::TypeForbidden)) => {
            Ok(Json(json!({ "clean": false, "info": error.to_string() })))
        }
        Err(error) => Err(error.into()),
    }
}
