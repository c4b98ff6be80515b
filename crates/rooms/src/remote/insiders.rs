//! A room with members on servers that this network has nothing to do with is not entered: what they say would not be heard
//! here, and what is said here would not be for them.

use ruma::{ServerName, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Error, Inner, Result};

#[derive(Deserialize)]
struct Membership {
    #[serde(rename = "type")]
    kind: String,
    state_key: String,
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    membership: String,
}

impl Inner {
    /// [`Error::Outsiders`] if one of these servers, or one with a member (invited and knocking ones too) in this state, does
    /// not take part in the network. The state is read as it came: whoever made it up made us stay out, and no more.
    pub(crate) fn check_insiders(&self, state: &[Box<RawValue>], servers: &[String]) -> Result<()> {
        let stranger = |server: &ServerName| (!self.takes_part(server)).then(|| server.to_owned());
        let named = servers.iter().find_map(|name| stranger(&ServerName::parse(name).ok()?));
        let found = named.or_else(|| {
            let mut users = state.iter().filter_map(|raw| member(raw));
            users.find_map(|user| stranger(user.server_name()))
        });
        found.map_or(Ok(()), |server| Err(Error::Outsiders(server)))
    }
}

fn member(raw: &RawValue) -> Option<ruma::OwnedUserId> {
    let event: Membership = serde_json::from_str(raw.get()).ok()?;
    let comes = matches!(event.content.membership.as_str(), "join" | "invite" | "knock");
    (event.kind == "m.room.member" && comes).then(|| UserId::parse(event.state_key).ok())?
}
