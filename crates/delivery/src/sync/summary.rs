//! What names a room for a client that does not have all its members.

use chappe_rooms::Event;
use chappe_store::{Membership, state::StateKey};
use ruma::OwnedUserId;
use serde::Deserialize;

use super::{Summary, delta::Work, joined::Place, state::Nums, timeline::Slice};
use crate::Error;

/// Members named for a room without a name.
const HEROES: usize = 5;
/// What names a room.
const NAMES: [&str; 2] = ["m.room.name", "m.room.canonical_alias"];
const REDACTION: &str = "m.room.redaction";

impl Work<'_> {
    /// What names the room now.
    pub(super) async fn summary(&self, place: &Place<'_>) -> Result<Summary, Error> {
        #[derive(Default, Deserialize)]
        struct Content {
            name: Option<String>,
            alias: Option<String>,
        }
        let head = &place.view.head;
        let found =
            place.view.state_events_at(head.state, &NAMES.map(|kind| StateKey::new(kind, ""))).await?;
        let mut found = found
            .into_iter()
            .map(|event| event.and_then(|event| event.pdu.content_as::<Content>()).unwrap_or_default());
        let name = found.next().and_then(|content| content.name);
        let alias = found.next().and_then(|content| content.alias);
        // An empty one names nothing, and neither does one that was redacted.
        let is_named = [name, alias].into_iter().flatten().any(|text| !text.is_empty());
        let heroes = if is_named { None } else { Some(self.heroes(place).await?) };
        Ok(Summary { heroes, joined: Some(head.joined.into()), invited: Some(head.invited.into()) })
    }

    /// Members by whom a room without a name is called.
    pub(super) async fn heroes(&self, place: &Place<'_>) -> Result<Vec<OwnedUserId>, Error> {
        let mut heroes = Vec::new();
        let groups: [&[Membership]; 2] =
            [&[Membership::Join, Membership::Invite], &[Membership::Leave, Membership::Ban]];
        for group in groups {
            for membership in group {
                let some = place.view.reader.some_members(place.view.nid, *membership, HEROES + 1).await?;
                heroes
                    .extend(some.into_iter().map(|(user, _)| user).filter(|user| *user != self.request.user));
            }
            if !heroes.is_empty() {
                break;
            }
        }
        heroes.truncate(HEROES);
        Ok(heroes)
    }
}

/// Whether state or timeline may tell another name of the room: a redaction may be that of its name.
pub(super) fn may_be_renamed(nums: &Nums, slice: &Slice) -> bool {
    let renames = |event: &Event| {
        let kind = event.pdu.kind().to_string();
        kind == REDACTION || NAMES.contains(&&*kind)
    };
    nums.keys().any(|key| NAMES.contains(&key.event_type()))
        || slice.events.iter().any(|seen| renames(&seen.event))
}
