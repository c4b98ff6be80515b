//! State that belongs to a user (MSC3757): state keys that begin with a user id and `_`, in room versions of their own.

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::{RoomVersionDisposition, RoomVersionRules},
    state_res::Event,
};
use serde_json::value::RawValue;

use crate::{Error, Pdu, power::Power};

/// The longest state key of these room versions, in bytes: a user id and what follows it.
pub(crate) const LONGEST_KEY: usize = 511;
/// The longest state key without a user id, in bytes.
const LONGEST_UNOWNED: usize = 255;
/// The longest rest of a state key after a user id, in bytes, the `_` included.
const LONGEST_REST: usize = 256;

/// Room version 10 with owned state.
pub(crate) static V10: RoomVersionRules = unstable(RoomVersionRules::V10);
/// Room version 11 with owned state.
pub(crate) static V11: RoomVersionRules = unstable(RoomVersionRules::V11);

const fn unstable(mut rules: RoomVersionRules) -> RoomVersionRules {
    rules.disposition = RoomVersionDisposition::Unstable;
    rules
}

/// Whether the room version knows owned state: of the room versions spoken here, the unstable ones do.
pub(crate) fn has_owners(rules: &RoomVersionRules) -> bool {
    matches!(rules.disposition, RoomVersionDisposition::Unstable)
}

/// Whether the sender may set this state: a user's is for the user, and for whoever has more power. A key that names nobody
/// whom the state could belong to is malformed.
pub(crate) fn check_owner(
    rules: &RoomVersionRules,
    pdu: &Pdu,
    state: impl Fn(&StateEventType, &str) -> Option<Pdu>,
) -> Result<(), Error> {
    let refused = |why: &str| Err(Error::Forbidden(why.to_owned()));
    let malformed = |why: &str| Err(Error::Malformed(why.to_owned()));
    if !may_be_owned(pdu.kind()) {
        return Ok(());
    }
    let Some(key) = pdu.state_key() else { return Ok(()) };
    if !key.starts_with('@') {
        return if key.len() > LONGEST_UNOWNED { malformed("the state key is too long") } else { Ok(()) };
    }
    let Some((owner, rest)) = split(key) else { return malformed("the state key begins with no user id") };
    if rest.len() > LONGEST_REST {
        return malformed("the state key is too long after the user id");
    }
    if owner == pdu.sender() {
        return Ok(());
    }
    let Some(create) = state(&StateEventType::RoomCreate, "") else { return refused("no create event") };
    let power = Power::new(rules, &create, state(&StateEventType::RoomPowerLevels, "").as_ref());
    if power.of(pdu.sender()) > power.of(owner) {
        Ok(())
    } else {
        refused("this state belongs to a user who has as much power as the sender")
    }
}

/// Members have rules of their own.
pub(crate) fn may_be_owned(kind: &TimelineEventType) -> bool {
    *kind != TimelineEventType::RoomMember
}

/// The user id that a state key begins with, and the rest: the id ends before the first `_` after the first `:`.
fn split(key: &str) -> Option<(&UserId, &str)> {
    let colon = key.find(':')?;
    let end = key[colon..].find('_').map_or(key.len(), |at| colon + at);
    let owner = <&UserId>::try_from(&key[..end]).ok()?;
    (owner.as_str().len() <= LONGEST_UNOWNED && !owner.localpart().is_empty()).then_some((owner, &key[end..]))
}

/// An event whose state key is, for the usual rules, the sender's own: whose it really is, [`check_owner`] has said.
#[derive(Clone, Debug)]
pub(crate) struct AsOwn<'a>(&'a Pdu);

impl<'a> AsOwn<'a> {
    /// `None` for an event about which the usual rules are to say everything.
    pub(crate) fn of(rules: &RoomVersionRules, pdu: &'a Pdu) -> Option<Self> {
        let owned = pdu.state_key().is_some_and(|key| key.starts_with('@'));
        (owned && has_owners(rules) && may_be_owned(pdu.kind())).then_some(Self(pdu))
    }
}

impl Event for AsOwn<'_> {
    type Id = OwnedEventId;

    fn event_id(&self) -> &Self::Id {
        Event::event_id(self.0)
    }

    fn room_id(&self) -> Option<&RoomId> {
        Event::room_id(self.0)
    }

    fn sender(&self) -> &UserId {
        self.0.sender()
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.0.origin_server_ts()
    }

    fn event_type(&self) -> &TimelineEventType {
        Event::event_type(self.0)
    }

    fn content(&self) -> &RawValue {
        Event::content(self.0)
    }

    fn state_key(&self) -> Option<&str> {
        Some(self.0.sender().as_str())
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_> {
        Event::prev_events(self.0)
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_> {
        Event::auth_events(self.0)
    }

    fn redacts(&self) -> Option<&Self::Id> {
        Event::redacts(self.0)
    }

    fn rejected(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use ruma::room_version_rules::RoomVersionRules;
    use serde_json::json;

    use super::{V10, V11};
    use crate::{Error, Pdu, auth::allowed_by_state, laws::Room};

    const ALICE: &str = "@alice:a.example";
    const BOB: &str = "@bob:b.example";
    const MOD: &str = "@mod:a.example";

    fn room(rules: &'static RoomVersionRules) -> Room {
        let mut room = Room::new(rules, ALICE);
        room.member(BOB, BOB, "join");
        room.member(MOD, MOD, "join");
        let levels = json!({ "users": { ALICE: 100, MOD: 50 }, "events": { "x.state": 0 } });
        room.send(ALICE, "m.room.power_levels", Some(""), &levels);
        room
    }

    fn allowed(rules: &'static RoomVersionRules, room: &Room, pdu: &Pdu) -> bool {
        allowed_by_state(rules, pdu, |kind, key| room.state_event(kind, key)).is_ok()
    }

    #[test]
    fn state_is_set_by_its_owner_and_by_who_has_more_power() {
        for rules in [&V10, &V11] {
            let mut room = room(rules);
            let mut may = |sender: &str, key: &str| {
                let pdu = room.send(sender, "x.state", Some(key), &json!({}));
                allowed(rules, &room, &pdu)
            };
            let long = |bytes: usize| "é".repeat(bytes / 2) + &"e".repeat(bytes % 2);
            for good in
                [BOB, &format!("{BOB}_1"), &format!("{BOB}_"), "plain", &format!("{BOB}_{}", long(255))]
            {
                assert!(may(BOB, good), "{good}");
            }
            assert!(may(MOD, &format!("{BOB}_1")) && may(ALICE, &format!("{MOD}_1")));
            for bad in [MOD, &format!("{MOD}_1"), ALICE, "@", "@bob", "@:b.example", "@bob:b.example.evil_1"]
            {
                assert!(!may(BOB, bad), "{bad}");
            }
            assert!(!may(BOB, "@bob:b.example:id1"), "no underscore ends the id");
            assert!(!may(BOB, &format!("{BOB}_{}", long(256))));
            assert!(!may(BOB, &long(256)) && may(BOB, &long(255)));
            assert!(!may(BOB, "@carol:c.example_1"), "as much power is not more");
        }
    }

    #[test]
    fn a_key_that_names_nobody_is_malformed() {
        let mut room = room(&V11);
        for key in ["@oops", "@:b.example", "@alice:a.example@state_1"] {
            let pdu = room.send(ALICE, "x.state", Some(key), &json!({}));
            let said = allowed_by_state(&V11, &pdu, |kind, key| room.state_event(kind, key));
            assert!(matches!(said, Err(Error::Malformed(_))), "{key}: {said:?}");
        }
    }

    #[test]
    fn other_room_versions_know_no_owners() {
        let rules = &RoomVersionRules::V11;
        let mut room = room(rules);
        let pdu = room.send(BOB, "x.state", Some(&format!("{BOB}_1")), &json!({}));
        assert!(!allowed(rules, &room, &pdu));
        let pdu = room.send(ALICE, "x.state", Some(BOB), &json!({}));
        assert!(!allowed(rules, &room, &pdu));
    }
}
