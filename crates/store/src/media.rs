//! What is known of media: where the bytes lie, whose they are, and the thumbnails made of them.

use ruma::{OwnedServerName, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::{Json, table};

/// A medium. Without a file it is an address that was handed out and waits for its upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Medium {
    /// Name of the blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<String>,
    /// Bytes.
    #[serde(default)]
    pub size: u64,
    /// Content type as the uploader gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// File name as the uploader gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// Who uploads it; none for media of other servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uploader: Option<OwnedUserId>,
    /// Made at (milliseconds since the Unix epoch).
    pub created: u64,
    /// Without a file: until when it may be uploaded (milliseconds since the Unix epoch).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
}

/// A thumbnail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thumbnail {
    /// Name of the blob.
    pub blob: String,
    /// Bytes.
    pub size: u64,
    /// Content type.
    pub content_type: String,
}

table! {
    /// `(server, media id)` → the medium.
    Media = MEDIA: (OwnedServerName, String) => Json<Medium>;
    /// `(uploader, media id)` → until when the address may be used: addresses without a file.
    PendingMedia = PENDING_MEDIA: (OwnedUserId, String) => u64;
    /// `(uploader, made at, media id)` → bytes: what a user has uploaded.
    UserMedia = USER_MEDIA: (OwnedUserId, u64, String) => u64;
    /// `(server, media id, size such as `320x240c`)` → the thumbnail.
    Thumbnails = THUMBNAILS: (OwnedServerName, String, String) => Json<Thumbnail>;
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;
    use crate::Value;

    #[test]
    fn golden_bytes() {
        let medium = Medium {
            blob: Some("b".to_owned()),
            size: 3,
            content_type: Some("image/png".to_owned()),
            filename: None,
            uploader: Some(user_id!("@a:b").to_owned()),
            created: 5,
            expires: None,
        };
        let text = r#"{"blob":"b","size":3,"content_type":"image/png","uploader":"@a:b","created":5}"#;
        assert_eq!(String::from_utf8(Json(medium).to_bytes()).unwrap(), text);
        let thumbnail = Thumbnail { blob: "t".to_owned(), size: 2, content_type: "image/jpeg".to_owned() };
        let text = r#"{"blob":"t","size":2,"content_type":"image/jpeg"}"#;
        assert_eq!(String::from_utf8(Json(thumbnail).to_bytes()).unwrap(), text);
    }
}
