//! Who may do what: the power levels of a room at one state.

use std::collections::BTreeSet;

use ruma::{
    Int, OwnedUserId, UserId,
    events::{TimelineEventType, room::power_levels::UserPowerLevel},
    int,
    room_version_rules::{AuthorizationRules, RoomVersionRules},
    state_res::events::{RoomCreateEvent, RoomPowerLevelsEvent, RoomPowerLevelsIntField as Field},
};

use crate::{Pdu, pdu::kind_to_judge};

/// Whether power levels have the form that they must have in a room of this create event.
pub(crate) fn check_form(rules: &RoomVersionRules, levels: &Pdu, create: &Pdu) -> Result<(), String> {
    const FIELDS: [Field; 7] = [
        Field::UsersDefault,
        Field::EventsDefault,
        Field::StateDefault,
        Field::Ban,
        Field::Redact,
        Field::Kick,
        Field::Invite,
    ];
    let (rules, levels) = (&rules.authorization, RoomPowerLevelsEvent::new(levels));
    for field in FIELDS {
        levels.get_as_int(field, rules)?;
    }
    levels.events(rules)?;
    levels.notifications(rules)?;
    let users = levels.users(rules)?;
    let creators = RoomCreateEvent::new(create).creators(rules)?;
    let names_one = users.is_some_and(|users| creators.iter().any(|user| users.contains_key(user)));
    if rules.explicitly_privilege_room_creators && names_one {
        return Err("creators have no power level".to_owned());
    }
    Ok(())
}

/// Power levels at a state. Reads leniently what peers wrote: an unreadable field has its default.
#[derive(Clone, Debug)]
pub struct Power {
    rules: AuthorizationRules,
    creators: BTreeSet<OwnedUserId>,
    levels: Option<RoomPowerLevelsEvent<Pdu>>,
}

impl Power {
    /// From the create event and the power levels event of the state, if there is one.
    pub fn new(rules: &RoomVersionRules, create: &Pdu, levels: Option<&Pdu>) -> Self {
        let creators = RoomCreateEvent::new(create).creators(&rules.authorization).unwrap_or_default();
        Self {
            rules: rules.authorization.clone(),
            creators: creators.into_iter().collect(),
            levels: levels.cloned().map(RoomPowerLevelsEvent::new),
        }
    }

    /// The creators of the room: the create event's sender, and the additional ones of version 12 and later.
    pub fn creators(&self) -> &BTreeSet<OwnedUserId> {
        &self.creators
    }

    /// Everybody who is above others by name: the creators, and whoever has a level of their own.
    pub fn named(&self) -> BTreeSet<OwnedUserId> {
        let levels = self.levels.as_ref().and_then(|levels| levels.users(&self.rules).ok().flatten());
        levels.into_iter().flatten().map(|(user, _)| user).chain(&self.creators).cloned().collect()
    }

    /// The level of a user; creators of rooms of version 12 and later are above every number.
    pub fn of(&self, user: &UserId) -> UserPowerLevel {
        let creator = self.creators.contains(user);
        if creator && self.rules.explicitly_privilege_room_creators {
            return UserPowerLevel::Infinite;
        }
        let level = match &self.levels {
            Some(levels) => levels.user_power_level(user, &self.rules).unwrap_or(int!(0)),
            None if creator => int!(100),
            None => int!(0),
        };
        UserPowerLevel::Int(level)
    }

    /// The level needed to send an event of this type.
    pub fn to_send(&self, kind: &TimelineEventType, state_key: Option<&str>) -> Int {
        let judged = kind_to_judge(kind);
        let kind = judged.as_ref().unwrap_or(kind);
        match &self.levels {
            Some(levels) => levels.event_power_level(kind, state_key, &self.rules).unwrap_or(int!(50)),
            // Without power levels everybody may do everything that is not a matter of membership.
            None => int!(0),
        }
    }

    /// The level needed to redact other people's events.
    pub fn to_redact(&self) -> Int {
        self.field(Field::Redact)
    }

    /// The level needed to invite.
    pub fn to_invite(&self) -> Int {
        self.field(Field::Invite)
    }

    /// The level needed to kick.
    pub fn to_kick(&self) -> Int {
        self.field(Field::Kick)
    }

    /// The level needed to ban.
    pub fn to_ban(&self) -> Int {
        self.field(Field::Ban)
    }

    /// The level needed to notify everybody in the way of `key` (`room`).
    pub fn to_notify(&self, key: &str) -> Int {
        let levels = self.levels.as_ref().and_then(|levels| levels.notifications(&self.rules).ok().flatten());
        levels.and_then(|levels| levels.get(key).copied()).unwrap_or(int!(50))
    }

    fn field(&self, field: Field) -> Int {
        let level =
            self.levels.as_ref().and_then(|levels| levels.get_as_int(field, &self.rules).ok().flatten());
        level.unwrap_or_else(|| field.default_value())
    }
}
