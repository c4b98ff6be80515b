//! What is counted, by name.

use chappe_rooms::View;
use chappe_rules::Pdu;
use chappe_store::{AccountNews, LogInMethod};
use ruma::events::StateEventType;
use serde::Deserialize;

use crate::Error;

/// Accounts that are open when the day begins.
pub(super) const OPEN: &str = "account.open";
/// Whose users were here within 30 days.
pub(super) const ACTIVE_30_DAYS: &str = "people.active_30_days";
/// Bytes of the files that people have uploaded.
pub(super) const MEDIA_BYTES: &str = "storage.media_bytes";

/// Whether a kind is not what happened on a day, but how things stood when it began.
pub(super) fn is_level(kind: &str) -> bool {
    [OPEN, ACTIVE_30_DAYS, MEDIA_BYTES].contains(&kind)
}

/// The kind of what happened to an account.
pub(super) fn news(what: AccountNews) -> &'static str {
    match what {
        AccountNews::Made => "account.made",
        AccountNews::Closed => "account.closed",
        AccountNews::Reopened => "account.reopened",
        AccountNews::Renewed => "account.renewed",
        AccountNews::Active => "people.active",
        AccountNews::LoggedIn(by) => match by {
            LogInMethod::Password => "log_in.password",
            LogInMethod::SingleSignOn => "log_in.single_sign_on",
            LogInMethod::Token => "log_in.token",
            LogInMethod::SignUp => "log_in.sign_up",
            LogInMethod::Service => "log_in.service",
            LogInMethod::Administrator => "log_in.administrator",
        },
    }
}

/// What of a message is looked at.
#[derive(Default, Deserialize)]
struct Said {
    msgtype: Option<String>,
    #[serde(rename = "m.relates_to")]
    relation: Option<Relation>,
}

#[derive(Deserialize)]
struct Relation {
    rel_type: Option<String>,
}

/// The kind of a message; `None` for what is none: state, edits, redactions.
pub(super) fn message(event: &Pdu) -> Option<&'static str> {
    if event.state_key().is_some() {
        return None;
    }
    let kind = event.kind().to_string();
    let said: Said = event.content_as().unwrap_or_default();
    let relation = said.relation.and_then(|relation| relation.rel_type);
    if relation.as_deref() == Some("m.replace") {
        return None;
    }
    match kind.as_str() {
        "m.room.encrypted" => Some("encrypted"),
        "m.room.message" => Some(match said.msgtype.as_deref() {
            Some("m.text" | "m.notice" | "m.emote") => "text",
            Some("m.file" | "m.image" | "m.video" | "m.audio") => "file",
            Some("m.location") => "location",
            _ => "other",
        }),
        "m.sticker" => Some("sticker"),
        "m.reaction" => Some("reaction"),
        "m.poll.start" | "org.matrix.msc3381.poll.start" => Some("poll"),
        "m.call.invite" | "m.rtc.notification" | "org.matrix.msc4075.rtc.notification" => Some("call"),
        _ => None,
    }
}

#[derive(Default, Deserialize)]
struct AccessRules {
    rule: Option<String>,
    #[serde(default)]
    visibility: Option<String>,
    // Some clients write null.
    #[serde(default)]
    force_unencrypted_at_creation: Option<bool>,
}

#[derive(Deserialize)]
struct JoinRules {
    join_rule: String,
}

/// The kind of a room, as the network's clients tell them apart.
pub(super) async fn room(view: &View<'_>) -> Result<&'static str, Error> {
    let rules = StateEventType::from(chappe_rules::access::RULES);
    let rules: Option<AccessRules> = view.current_content(rules).await?;
    let rule = rules.as_ref().and_then(|rules| rules.rule.as_deref());
    if rule == Some("direct") {
        return Ok("direct");
    }
    if view.current(StateEventType::RoomEncryption, "").await?.is_some() {
        return Ok(if rule == Some("unrestricted") { "external" } else { "private" });
    }
    let is_private = match rules {
        Some(rules) => {
            rules.force_unencrypted_at_creation == Some(true) && rules.visibility.as_deref() != Some("public")
        }
        None => {
            let entry = view.current_content::<JoinRules>(StateEventType::RoomJoinRules).await?;
            entry.is_none_or(|entry| entry.join_rule != "public")
        }
    };
    Ok(if is_private { "unencrypted" } else { "forum" })
}
