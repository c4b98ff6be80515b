//! Invites and knocks: what may be known of a room before one is in it.

use chappe_rules::{
    Pdu,
    client::{self, Form},
    version,
    visibility::membership,
};
use chappe_store::{At, Json as Document, Membership, out_of_band::OutOfBand, state::StateKey};
use ruma::{OwnedEventId, RoomVersionId, events::room::member::MembershipState};

use super::{Json, LeftRoom, RoomPart, StatePart, Timeline, delta::Work, joined::Place};
use crate::{Error, signal::Settings};

/// State that an invite or knock tells of a room. Specification: client-server API, "Stripped state".
const TOLD: [&str; 7] = [
    "m.room.create",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.encryption",
];

impl Work<'_> {
    /// The stripped state of a room here that the user is invited to or knocks at; `None` for an invite that
    /// the user does not want.
    pub(super) async fn stripped(
        &self,
        place: &Place<'_>,
        settings: &Settings,
    ) -> Result<Option<Vec<Json>>, Error> {
        let view = &place.view;
        let own = view.load_one(place.own.value.num).await?.pdu;
        if place.own.value.membership == Membership::Invite && settings.hides_invite(own.sender()) {
            return Ok(None);
        }
        let mut keys: Vec<StateKey> = TOLD.iter().map(|kind| StateKey::new(kind, "")).collect();
        if own.sender() != self.request.user {
            keys.push(StateKey::new("m.room.member", own.sender()));
        }
        let found = view.state_events_at(view.head.state, &keys).await?;
        let mut state: Vec<Json> =
            found.iter().flatten().filter_map(|event| client::stripped(&event.pdu)).collect();
        state.extend(client::stripped(&own));
        Ok(Some(state))
    }
}

/// The stripped state of a room elsewhere, as its server told it.
pub(super) fn out_of_band(
    at: &At<Document<OutOfBand>>,
    settings: &Settings,
) -> Option<(Membership, Vec<Json>)> {
    let Document(what) = &at.value;
    let kind = what.kind()?;
    let mut state = what.state.clone();
    if let Some(member) = member_of(what) {
        if kind == Membership::Invite && settings.hides_invite(member.sender()) {
            return None;
        }
        state.extend(client::stripped(&member));
    }
    Some((kind, state))
}

/// A room elsewhere that the user is out of again: the event that ended the invite or knock is all there is to see.
pub(super) fn farewell(at: &At<Document<OutOfBand>>, form: Form) -> LeftRoom {
    let ended = member_of(&at.value.0)
        .filter(|member| matches!(membership(Some(member)), MembershipState::Leave | MembershipState::Ban));
    let events = ended.map(|member| client::render(&member, form, &client::Unsigned::default()));
    let timeline =
        Timeline { events: events.into_iter().collect(), limited: false, prev_batch: "t1".to_owned() };
    LeftRoom { part: RoomPart { timeline, state: StatePart::Before(Vec::new()), account_data: Vec::new() } }
}

fn member_of(what: &OutOfBand) -> Option<Pdu> {
    let known = what.version.as_deref().and_then(|version| RoomVersionId::try_from(version).ok());
    let rules = version::rules(&known.unwrap_or(RoomVersionId::V11))?;
    let event_id = OwnedEventId::try_from(what.event_id.as_str()).ok()?;
    Pdu::restore(rules, event_id, what.event.get()).ok()
}
