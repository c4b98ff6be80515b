//! `GET` and `DELETE /v1/media/{serverName}/{mediaId}`: one medium that is here.

use std::fmt::Write as _;

use axum::{Json, extract::State};
use chappe_web::Arguments;
use ruma::OwnedServerName;
use serde_json::{Value, json};

use super::{deleted, shown};
use crate::api::{Api, Result};

pub(super) async fn show(
    State(api): State<Api>,
    Arguments((server, id)): Arguments<(OwnedServerName, String)>,
) -> Result<Json<Value>> {
    let found = api.media.info(&server, &id).await?;
    let info = found.ok_or_else(|| chappe_web::Error::not_found("Unknown media"))?;
    let mut shown = shown(&info);
    shown["media_origin"] = json!((!api.media.is_local(&server)).then_some(&server));
    shown["user_id"] = json!(info.medium.uploader);
    shown["filesystem_id"] = json!(info.medium.blob);
    shown["url_cache"] = Value::Null;
    shown["authenticated"] = true.into();
    shown["sha256"] = json!(info.medium.sha256.map(|hash| digits(&hash)));
    Ok(Json(json!({ "media_info": shown })))
}

/// Media of this server are gone then; of others, the copy that is kept here.
pub(super) async fn delete(
    State(api): State<Api>,
    Arguments((server, id)): Arguments<(OwnedServerName, String)>,
) -> Result<Json<Value>> {
    api.media.delete(&server, &id).await?;
    Ok(Json(deleted(&[id])))
}

fn digits(hash: &[u8]) -> String {
    hash.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
