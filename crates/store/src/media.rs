//! What is known of media: where the bytes lie, whose they are, and the thumbnails made of them.

use std::collections::BTreeMap;

use ruma::{OwnedServerName, OwnedUserId};
use serde::{Deserialize, Serialize};
use serde_json::Value as JsonValue;

use crate::{EventNum, Json, RoomNid, table};

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
    /// When it got its address, which may be named from then on (milliseconds since the Unix epoch).
    pub created: u64,
    /// Without a file: until when it may be uploaded (milliseconds since the Unix epoch).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// SHA-256 of the bytes; what was stored before this was kept gets it when it is next asked for.
    #[serde(default, with = "crate::hex32::option", skip_serializing_if = "Option::is_none")]
    pub sha256: Option<[u8; 32]>,
    /// Which administrator has put it under quarantine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined_by: Option<OwnedUserId>,
    /// It is never put under quarantine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub protected: bool,
}

impl Medium {
    /// Whether it may go once nothing names it: there is a file, which no administrator has said something of.
    pub fn may_go_unnamed(&self) -> bool {
        self.blob.is_some() && self.quarantined_by.is_none() && !self.protected
    }
}

/// Bytes that are given to nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Which administrator said so.
    pub by: OwnedUserId,
    /// When, in milliseconds since the Unix epoch.
    pub at: u64,
}

/// What a scanner thought of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether it found nothing.
    pub clean: bool,
    /// When, in milliseconds since the Unix epoch.
    pub at: u64,
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

/// What a web page said of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UrlPreview {
    /// When it was asked (milliseconds since the Unix epoch).
    pub made: u64,
    /// Names as in OpenGraph → texts and numbers, as clients get them.
    pub properties: BTreeMap<String, JsonValue>,
    /// Media id of its picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
}

table! {
    /// `(server, media id)` → the medium.
    Media = MEDIA: (OwnedServerName, String) => Json<Medium>;
    /// `(uploader, media id)` → until when the address may be used: addresses without a file.
    PendingMedia = PENDING_MEDIA: (OwnedUserId, String) => u64;
    /// `(uploader, made at, media id)` → bytes: what a user has uploaded.
    UserMedia = USER_MEDIA: (OwnedUserId, u64, String) => u64;
    /// Uploader → bytes of all of them; none while nobody has counted.
    UserBytes = USER_BYTES: OwnedUserId => u64;
    /// `(server, media id, size such as `320x240c`)` → the thumbnail.
    Thumbnails = THUMBNAILS: (OwnedServerName, String, String) => Json<Thumbnail>;
    /// `(SHA-256, server, media id)` → nothing: media by their bytes.
    MediaByHash = MEDIA_BY_HASH: ([u8; 32], OwnedServerName, String) => ();
    /// SHA-256 → the quarantine of these bytes.
    Quarantines = QUARANTINES: [u8; 32] => Json<Quarantine>;
    /// `(server, media id)` → last given out at (milliseconds since the Unix epoch).
    MediaAccess = MEDIA_ACCESS: (OwnedServerName, String) => u64;
    /// SHA-256 of the address → what the page said of itself.
    UrlPreviews = URL_PREVIEWS: [u8; 32] => Json<UrlPreview>;
    /// `(asked at, SHA-256 of the address)` → media id of the picture, empty without one.
    PreviewsByAge = PREVIEWS_BY_AGE: (u64, [u8; 32]) => String;
    /// SHA-256 → what a scanner thought of these bytes.
    Verdicts = VERDICTS: [u8; 32] => Json<Verdict>;
    /// `(scanned at, SHA-256)` → nothing.
    VerdictsByAge = VERDICTS_BY_AGE: (u64, [u8; 32]) => ();
    /// `(server, media id, room, event)` → nothing: the event names the medium.
    MediaUses = MEDIA_USES: (OwnedServerName, String, RoomNid, EventNum) => ();
    /// `(server, media id)` → nothing: an event that named the medium has expired, and it may go if no other does.
    MediaUnused = MEDIA_UNUSED: (OwnedServerName, String) => ();
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
            sha256: None,
            quarantined_by: None,
            protected: false,
        };
        let text = r#"{"blob":"b","size":3,"content_type":"image/png","uploader":"@a:b","created":5}"#;
        assert_eq!(String::from_utf8(Json(medium.clone()).to_bytes()).unwrap(), text);
        let by = Some(user_id!("@c:b").to_owned());
        let held = Medium { sha256: Some([0xab; 32]), quarantined_by: by, protected: true, ..medium };
        let hash = "ab".repeat(32);
        let text =
            text.replace('}', &format!(r#","sha256":"{hash}","quarantined_by":"@c:b","protected":true}}"#));
        assert_eq!(String::from_utf8(Json(held).to_bytes()).unwrap(), text);
        let quarantine = Json(Quarantine { by: user_id!("@c:b").to_owned(), at: 7 });
        assert_eq!(String::from_utf8(quarantine.to_bytes()).unwrap(), r#"{"by":"@c:b","at":7}"#);
        let verdict = Json(Verdict { clean: true, at: 8 });
        assert_eq!(String::from_utf8(verdict.to_bytes()).unwrap(), r#"{"clean":true,"at":8}"#);
        let thumbnail = Thumbnail { blob: "t".to_owned(), size: 2, content_type: "image/jpeg".to_owned() };
        let text = r#"{"blob":"t","size":2,"content_type":"image/jpeg"}"#;
        assert_eq!(String::from_utf8(Json(thumbnail).to_bytes()).unwrap(), text);
        let properties =
            [("og:title".to_owned(), "T".into()), ("og:image:width".to_owned(), 3.into())].into();
        let preview = UrlPreview { made: 9, properties, picture: Some("p".to_owned()) };
        let text = r#"{"made":9,"properties":{"og:image:width":3,"og:title":"T"},"picture":"p"}"#;
        assert_eq!(String::from_utf8(Json(preview).to_bytes()).unwrap(), text);
    }
}
