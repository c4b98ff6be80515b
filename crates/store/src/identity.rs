//! Tables of identity: the allow-list of e-mail addresses and the validations of addresses under way.

use serde::{Deserialize, Serialize};

use crate::{Json, table};

/// What is kept with a rule of the allow-list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowRule {
    /// When it was added, in milliseconds since 1970.
    pub added_at: u64,
    /// Free text of whoever added it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// What an address is validated for. A validation for one thing is worth nothing for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// A new account.
    Registration,
    /// A new password of the account that has this address.
    PasswordReset,
    /// Adding the address to the account of whoever comes back with the session.
    AddToAccount,
    /// Binding the address to a user in the identity service.
    Bind,
}

/// One validation under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validation {
    /// The address, as parsed.
    pub address: String,
    /// What for.
    pub purpose: Purpose,
    /// SHA-256 of the client's secret.
    pub secret: [u8; 32],
    /// The highest attempt for which a mail has been sent; 0 before the first.
    pub sent_attempt: u64,
    /// SHA-256 of each token mailed so far.
    pub tokens: Vec<[u8; 32]>,
    /// Where the browser goes once the address is validated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_link: Option<String>,
    /// When it ends, in milliseconds since 1970.
    pub expires_at: u64,
    /// Whether the address is validated.
    pub validated: bool,
    /// When it was validated, in milliseconds since 1970; older sessions do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validated_at: Option<u64>,
    /// Wrong tokens so far.
    pub failures: u32,
    /// For a new password: SHA-256 of the old one's hash, or of nothing. Once the password has changed, this is worth
    /// nothing; older sessions do not tell.
    #[serde(default, with = "crate::hex32::option", skip_serializing_if = "Option::is_none")]
    pub password: Option<[u8; 32]>,
}

table! {
    /// Session id → validation.
    Validations = VALIDATIONS: String => Json<Validation>;
    /// SHA-256 of (purpose, address, client secret) → session id.
    ValidationsBySecret = VALIDATIONS_BY_SECRET: [u8; 32] => String;
    /// `(expires at, session id)` → the key of [`ValidationsBySecret`]: what to clean up when.
    ValidationsByExpiry = VALIDATIONS_BY_EXPIRY: (u64, String) => Vec<u8>;
    /// Rule as text → what is kept with it.
    AllowRules = ALLOW_RULES: String => Json<AllowRule>;
    /// Server name or `*.` and a domain → what is kept with it.
    AllowedServers = ALLOWED_SERVERS: String => Json<AllowRule>;
}

#[cfg(test)]
mod tests {
    use super::{AllowRule, Purpose, Validation};
    use crate::{Json, Value};

    #[test]
    fn golden_bytes() {
        let rule = Json(AllowRule { added_at: 7, note: String::new() });
        assert_eq!(rule.to_bytes(), br#"{"added_at":7}"#);
        let validation = Json(Validation {
            address: "a@x.fr".to_owned(),
            purpose: Purpose::Registration,
            secret: [0; 32],
            sent_attempt: 1,
            tokens: Vec::new(),
            next_link: None,
            expires_at: 9,
            validated: false,
            validated_at: None,
            failures: 0,
            password: None,
        });
        let zeros = ["0"; 32].join(",");
        let golden = format!(
            r#"{{"address":"a@x.fr","purpose":"registration","secret":[{zeros}],"sent_attempt":1,"tokens":[],"expires_at":9,"validated":false,"failures":0}}"#
        );
        assert_eq!(String::from_utf8(validation.to_bytes()).unwrap(), golden);
        assert_eq!(Json::<Validation>::from_bytes(golden.as_bytes()).unwrap(), validation);
        let reset = Json(Validation { password: Some([0xab; 32]), ..validation.0 });
        let golden = golden.replace('}', &format!(r#","password":"{}"}}"#, "ab".repeat(32)));
        assert_eq!(String::from_utf8(reset.to_bytes()).unwrap(), golden);
    }
}
