//! What administrators asked for and what came of it: entries that are only ever added, each bound to the one before.

use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};

use crate::{Json, table};

/// An entry. The next one names the SHA-256 of its text as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its number, from 1.
    pub number: u64,
    /// When it was written, in milliseconds since 1970.
    pub at: u64,
    /// Who asked.
    pub by: OwnedUserId,
    /// SHA-256 of the text of the entry before; zeros in the first.
    #[serde(with = "crate::hex32")]
    pub before: [u8; 32],
    /// What this is about.
    #[serde(flatten)]
    pub what: Audited,
}

/// What an entry is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Audited {
    /// Something was asked for; written before it is done.
    Asked {
        /// What, in one line.
        action: String,
        /// With which arguments, without secrets.
        details: serde_json::Value,
    },
    /// What came of it.
    Answered {
        /// The number of the entry that asked.
        asked: u64,
        /// Why it was not done.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
}

/// How far the log goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditMark {
    /// The number of the last entry; 0 before the first.
    pub number: u64,
    /// SHA-256 of its text.
    #[serde(with = "crate::hex32")]
    pub hash: [u8; 32],
}

table! {
    /// Number → text of the entry.
    AuditEntries = AUDIT_ENTRIES: u64 => String;
    /// How far they go.
    AuditHead = AUDIT_HEAD: () => Json<AuditMark>;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Key, KeyWriter, Value};

    fn entry(what: Audited) -> String {
        let by = ruma::owned_user_id!("@a:x.fr");
        serde_json::to_string(&AuditEntry { number: 1, at: 2, by, before: [0xab; 32], what }).unwrap()
    }

    #[test]
    fn golden_bytes() {
        let mut key = KeyWriter::default();
        1_u64.write(&mut key);
        assert_eq!(key.0, [0, 0, 0, 0, 0, 0, 0, 1]);
        let start = format!(r#"{{"number":1,"at":2,"by":"@a:x.fr","before":"{}","kind":"#, "ab".repeat(32));
        let asked = Audited::Asked { action: "a".to_owned(), details: json!({ "b": 1 }) };
        assert_eq!(entry(asked), format!(r#"{start}"asked","action":"a","details":{{"b":1}}}}"#));
        let done = Audited::Answered { asked: 1, error: None };
        assert_eq!(entry(done), format!(r#"{start}"answered","asked":1}}"#));
        let mark = Json(AuditMark { number: 1, hash: [0xab; 32] }).to_bytes();
        let text = format!(r#"{{"number":1,"hash":"{}"}}"#, "ab".repeat(32));
        assert_eq!(String::from_utf8(mark).unwrap(), text);
    }
}
