//! Tables of how long accounts are good for: when each is looked at next, what its user was mailed.

use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};

use crate::{Json, table};

/// How the end of an account is dealt with. The end itself stands in the account's head record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// When it is looked at next, in milliseconds since 1970: its place in [`RenewalsDue`].
    pub due: u64,
    /// How many milliseconds before the end the last mail was due; those before it are no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<u64>,
    /// When it was found that the account had ended, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
    /// Whether no mails go out by themselves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quiet: bool,
    /// SHA-256 of the tokens of the links that were mailed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<[u8; 32]>,
    /// The code that was mailed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<RenewalCode>,
}

/// A code that renews an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalCode {
    /// SHA-256 of the user and the code.
    #[serde(with = "crate::hex32")]
    pub hash: [u8; 32],
    /// Wrong codes that were tried.
    #[serde(default)]
    pub failures: u32,
    /// Whether it has renewed the account.
    #[serde(default)]
    pub used: bool,
}

/// A link that renews an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalLink {
    /// Whose.
    pub user: OwnedUserId,
    /// End of the link, in milliseconds since 1970.
    pub expires: u64,
    /// Whether the account was renewed since it was mailed.
    #[serde(default)]
    pub used: bool,
}

/// How far giving ends to accounts that had none has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// The last account that was looked at.
    pub after: String,
    /// Whether that was the last of all.
    pub done: bool,
}

table! {
    /// `(milliseconds since 1970, user)` → nothing: the account is looked at then.
    RenewalsDue = RENEWALS_DUE: (u64, OwnedUserId) => ();
    /// User → how the account's end is dealt with.
    Renewals = RENEWALS: OwnedUserId => Json<Renewal>;
    /// SHA-256 of a link's token → whose.
    RenewalLinks = RENEWAL_LINKS: [u8; 32] => Json<RenewalLink>;
    /// One row, without a name.
    Enrolments = ENROLMENTS: String => Json<Enrolment>;
}
