//! Which invites a user wants: the account data `m.invite_permission_config`, and its finer forerunner (MSC4155).

use chappe_rules::glob::{Glob, folded};
use chappe_store::Reader;
use ruma::UserId;
use serde::{Deserialize, Deserializer};

use crate::{Accounts, Error, Scope};

/// Invites can be blocked altogether (client-server API, "Invite permission"; MSC4380 before that).
const BLOCKING: [&str; 2] = ["m.invite_permission_config", "org.matrix.msc4380.invite_permission_config"];
/// Invites can be filtered by who sends them (MSC4155).
const FILTERING: &str = "org.matrix.msc4155.invite_permission_config";
/// Patterns of one list that are looked at.
const MOST: usize = 1_000;

/// What becomes of an invite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Welcome {
    /// It is shown.
    Shown,
    /// It is accepted and not shown: whoever sent it must not notice.
    Hidden,
    /// It is refused.
    Blocked,
}

/// What a user has said about invites.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct InviteFilter {
    blocks_all: bool,
    filter: Option<Filter>,
}

#[derive(Deserialize)]
struct Blocking {
    default_action: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
struct Filter {
    enabled: Option<bool>,
    #[serde(default, deserialize_with = "or_none")]
    allowed_users: Vec<String>,
    #[serde(default, deserialize_with = "or_none")]
    ignored_users: Vec<String>,
    #[serde(default, deserialize_with = "or_none")]
    blocked_users: Vec<String>,
    #[serde(default, deserialize_with = "or_none")]
    allowed_servers: Vec<String>,
    #[serde(default, deserialize_with = "or_none")]
    ignored_servers: Vec<String>,
    #[serde(default, deserialize_with = "or_none")]
    blocked_servers: Vec<String>,
}

fn or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(from)?.unwrap_or_default())
}

fn any(patterns: &[String], text: &str) -> bool {
    let text = &folded(text);
    patterns.iter().take(MOST).any(|pattern| Glob::new(pattern).matches(text))
}

impl Filter {
    /// The lists in the order in which they count.
    fn welcome(&self, sender: &UserId) -> Welcome {
        if self.enabled == Some(false) {
            return Welcome::Shown;
        }
        let server = sender.server_name().host();
        let lists = [
            (&self.allowed_users, sender.as_str(), Welcome::Shown),
            (&self.ignored_users, sender.as_str(), Welcome::Hidden),
            (&self.blocked_users, sender.as_str(), Welcome::Blocked),
            (&self.allowed_servers, server, Welcome::Shown),
            (&self.ignored_servers, server, Welcome::Hidden),
            (&self.blocked_servers, server, Welcome::Blocked),
        ];
        let found = lists.into_iter().find(|(patterns, text, _)| any(patterns, text));
        found.map_or(Welcome::Shown, |(_, _, welcome)| welcome)
    }
}

impl InviteFilter {
    /// What becomes of an invite by `sender`.
    pub fn welcome(&self, sender: &UserId) -> Welcome {
        if self.blocks_all {
            return Welcome::Blocked;
        }
        self.filter.as_ref().map_or(Welcome::Shown, |filter| filter.welcome(sender))
    }

    /// Whether an invite by `sender` is kept from the user's devices, one that came before the user blocked it included.
    pub fn hides(&self, sender: &UserId) -> bool {
        self.welcome(sender) != Welcome::Shown
    }
}

impl Accounts {
    /// What a user has said about invites. What cannot be understood says nothing.
    pub async fn invite_filter(&self, reader: &Reader<'_>, user: &UserId) -> Result<InviteFilter, Error> {
        let mut found = InviteFilter::default();
        for kind in BLOCKING {
            let content = self.account_data(reader, user, Scope::Global, kind).await?;
            let blocking = content.and_then(|raw| serde_json::from_str::<Blocking>(raw.get()).ok());
            let action = blocking.and_then(|blocking| blocking.default_action);
            found.blocks_all |= action.as_deref() == Some("block");
        }
        let content = self.account_data(reader, user, Scope::Global, FILTERING).await?;
        found.filter = content.and_then(|raw| serde_json::from_str(raw.get()).ok());
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;
    use serde_json::json;

    use super::{Filter, InviteFilter, Welcome};

    fn filter(config: serde_json::Value) -> InviteFilter {
        let filter: Option<Filter> = serde_json::from_value(config).ok();
        InviteFilter { blocks_all: false, filter }
    }

    #[test]
    fn the_first_list_that_matches_decides() {
        let (bob, eve) = (user_id!("@bob:bad.example:8448"), user_id!("@eve:bad.example"));
        let some = filter(json!({ "allowed_users": ["@bob:*"], "blocked_servers": ["bad.*"] }));
        assert_eq!((some.welcome(bob), some.welcome(eve)), (Welcome::Shown, Welcome::Blocked));
        let some = filter(json!({ "ignored_users": ["@?ob:*"], "allowed_servers": ["bad.example"] }));
        assert_eq!((some.welcome(bob), some.welcome(eve)), (Welcome::Hidden, Welcome::Shown));
        let both = filter(json!({ "ignored_servers": ["bad.example"], "blocked_servers": ["*"] }));
        assert_eq!(both.welcome(bob), Welcome::Hidden, "the port does not count");
    }

    #[test]
    fn what_is_off_or_unreadable_says_nothing() {
        let eve = user_id!("@eve:bad.example");
        for config in [
            json!({ "enabled": false, "blocked_servers": ["*"] }),
            json!({ "blocked_servers": null, "blocked_users": null }),
            json!({ "blocked_servers": "*" }),
            json!({}),
        ] {
            assert_eq!(filter(config.clone()).welcome(eve), Welcome::Shown, "{config}");
        }
    }
}
