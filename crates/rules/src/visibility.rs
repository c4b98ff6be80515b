//! History visibility: who may see an event, judged at the event.

use ruma::{
    UserId,
    events::{
        TimelineEventType,
        room::{history_visibility::HistoryVisibility, member::MembershipState},
    },
};
use serde::Deserialize;

use crate::Pdu;

/// The visibility that a state says; `shared` when it says nothing readable.
pub fn visibility(event: Option<&Pdu>) -> HistoryVisibility {
    #[derive(Deserialize)]
    struct Content {
        history_visibility: HistoryVisibility,
    }
    let said = event.and_then(Pdu::content_as::<Content>).map(|content| content.history_visibility);
    let known = |said: &HistoryVisibility| {
        matches!(
            said,
            HistoryVisibility::Invited
                | HistoryVisibility::Joined
                | HistoryVisibility::Shared
                | HistoryVisibility::WorldReadable
        )
    };
    said.filter(known).unwrap_or(HistoryVisibility::Shared)
}

/// The membership that a member event says; `leave` when it says nothing readable or there is none.
pub fn membership(event: Option<&Pdu>) -> MembershipState {
    #[derive(Deserialize)]
    struct Content {
        membership: MembershipState,
    }
    let said = event.and_then(Pdu::content_as::<Content>);
    said.map_or(MembershipState::Leave, |content| content.membership)
}

/// What is known of the room at an event, for one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtEvent {
    /// The visibility in the state before the event.
    pub visibility: HistoryVisibility,
    /// The user's membership in the state before the event.
    pub membership: MembershipState,
    /// Whether the user is joined now, or was joined at some time after the event.
    pub joined_since: bool,
}

/// Whether `user` may see `event`.
///
/// A visibility event is seen if the visibility before or after it allows it; likewise the user's own member event.
///
/// Specification: client-server API, "Room history visibility", "Server behaviour".
pub fn user_may_see(user: &UserId, event: &Pdu, at: &AtEvent) -> bool {
    let sees = |visibility: &HistoryVisibility, membership: &MembershipState| {
        *membership == MembershipState::Join
            || match visibility {
                HistoryVisibility::WorldReadable => true,
                HistoryVisibility::Invited => *membership == MembershipState::Invite,
                HistoryVisibility::Joined => false,
                _ => at.joined_since,
            }
    };
    if sees(&at.visibility, &at.membership) {
        return true;
    }
    match event.kind() {
        TimelineEventType::RoomHistoryVisibility if event.state_key() == Some("") => {
            sees(&visibility(Some(event)), &at.membership)
        }
        // Whoever is invited, refused or thrown out gets to know it.
        TimelineEventType::RoomMember if event.state_key() == Some(user.as_str()) => {
            let was_in = !matches!(at.membership, MembershipState::Leave | MembershipState::Ban);
            was_in || sees(&at.visibility, &membership(Some(event)))
        }
        _ => false,
    }
}

/// Whether a server may see `event`, given the memberships of its users in the state at the event. That the server is
/// in the room is asked before.
pub fn server_may_see(
    visibility: &HistoryVisibility,
    memberships: impl IntoIterator<Item = MembershipState>,
) -> bool {
    match visibility {
        HistoryVisibility::Joined => memberships.into_iter().any(|is| is == MembershipState::Join),
        HistoryVisibility::Invited => {
            memberships.into_iter().any(|is| matches!(is, MembershipState::Join | MembershipState::Invite))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use ruma::{
        events::room::{history_visibility::HistoryVisibility as See, member::MembershipState as Is},
        room_version_rules::RoomVersionRules,
        user_id,
    };

    use super::{AtEvent, server_may_see, user_may_see};
    use crate::laws::Room;

    #[test]
    fn message_by_visibility_and_membership() {
        let mut room = Room::new(&RoomVersionRules::V11, "@a:a.example");
        let message = room.say("@a:a.example", "hi");
        let sees = |visibility: See, membership: Is, joined_since| {
            user_may_see(
                user_id!("@b:b.example"),
                &message,
                &AtEvent { visibility, membership, joined_since },
            )
        };
        for visibility in [See::Joined, See::Invited, See::Shared, See::WorldReadable] {
            assert!(sees(visibility, Is::Join, false));
        }
        assert!(sees(See::WorldReadable, Is::Ban, false));
        assert!(sees(See::Shared, Is::Leave, true) && !sees(See::Shared, Is::Invite, false));
        assert!(sees(See::Invited, Is::Invite, false) && !sees(See::Invited, Is::Leave, true));
        assert!(!sees(See::Joined, Is::Invite, true));
    }

    #[test]
    fn own_membership_is_always_told() {
        let mut room = Room::new(&RoomVersionRules::V11, "@a:a.example");
        let ban = room.member("@a:a.example", "@b:b.example", "ban");
        let at = AtEvent { visibility: See::Joined, membership: Is::Invite, joined_since: false };
        assert!(user_may_see(user_id!("@b:b.example"), &ban, &at));
        assert!(!user_may_see(user_id!("@c:c.example"), &ban, &at));
    }

    #[test]
    fn servers_see_what_one_of_their_users_saw() {
        assert!(server_may_see(&See::Shared, []));
        assert!(!server_may_see(&See::Joined, [Is::Invite]));
        assert!(server_may_see(&See::Invited, [Is::Leave, Is::Invite]));
    }
}
