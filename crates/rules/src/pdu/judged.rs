//! An event as authorization and state resolution take it.

use std::sync::{Arc, LazyLock};

use ruma::{
    CanonicalJsonObject, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, UserId,
    events::TimelineEventType, owned_room_id, owned_user_id, state_res::Event,
};
use serde_json::value::RawValue;

use super::{Fields, MAX_ID_BYTES, Pdu, raw};

/// What stands for the join rules where there are none: other servers read `invite` then.
pub(crate) fn no_join_rules() -> &'static Pdu {
    static STAND_IN: LazyLock<Pdu> = LazyLock::new(|| {
        let content = CanonicalJsonObject::from([("join_rule".to_owned(), "invite".to_owned().into())]);
        let longer_than_any = format!("${}", "x".repeat(MAX_ID_BYTES));
        Pdu(Arc::new(Fields {
            event_id: EventId::parse(longer_than_any).expect("an event id but for its length"),
            room_id: owned_room_id!("!none:nobody.invalid"),
            names_room: true,
            sender: owned_user_id!("@none:nobody.invalid"),
            kind: TimelineEventType::RoomJoinRules,
            kind_to_judge: None,
            state_key: Some(String::new()),
            key_to_judge: None,
            content: raw(&content),
            to_judge: None,
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            depth: 0,
            time: 0,
            redacts: None,
            json: "{}".into(),
        }))
    });
    &STAND_IN
}

impl Pdu {
    /// The same event with another content for authorization to read.
    pub(crate) fn with_content_to_judge(&self, content: &RawValue) -> Self {
        Self(Arc::new(Fields { to_judge: Some(content.to_owned()), ..Fields::clone(&self.0) }))
    }

    /// The same event as one of another time, for state resolution to read.
    pub(crate) fn at(&self, time: i64) -> Self {
        Self(Arc::new(Fields { time, ..Fields::clone(&self.0) }))
    }
}

impl Event for Pdu {
    type Id = OwnedEventId;

    fn event_id(&self) -> &Self::Id {
        &self.0.event_id
    }

    fn room_id(&self) -> Option<&RoomId> {
        self.0.names_room.then_some(&self.0.room_id)
    }

    fn sender(&self) -> &UserId {
        &self.0.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.origin_server_ts()
    }

    fn event_type(&self) -> &TimelineEventType {
        self.0.kind_to_judge.as_ref().unwrap_or(&self.0.kind)
    }

    fn content(&self) -> &RawValue {
        self.0.to_judge.as_ref().unwrap_or(&self.0.content)
    }

    fn state_key(&self) -> Option<&str> {
        self.0.key_to_judge.as_deref().or(self.0.state_key.as_deref())
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_> {
        Box::new(self.0.prev_events.iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_> {
        Box::new(self.0.auth_events.iter())
    }

    fn redacts(&self) -> Option<&Self::Id> {
        self.0.redacts.as_ref()
    }

    fn rejected(&self) -> bool {
        false
    }
}

/// An event that has been judged before: what authorization and state resolution are given.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The event.
    pub pdu: Pdu,
    /// Whether the authorization rules refused it.
    pub rejected: bool,
}

impl From<Pdu> for Judged {
    fn from(pdu: Pdu) -> Self {
        Self { pdu, rejected: false }
    }
}

impl Event for Judged {
    type Id = OwnedEventId;

    fn event_id(&self) -> &Self::Id {
        &self.pdu.0.event_id
    }

    fn room_id(&self) -> Option<&RoomId> {
        Event::room_id(&self.pdu)
    }

    fn sender(&self) -> &UserId {
        self.pdu.sender()
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.pdu.origin_server_ts()
    }

    fn event_type(&self) -> &TimelineEventType {
        Event::event_type(&self.pdu)
    }

    fn content(&self) -> &RawValue {
        Event::content(&self.pdu)
    }

    fn state_key(&self) -> Option<&str> {
        Event::state_key(&self.pdu)
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_> {
        Box::new(self.pdu.prev_events().iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_> {
        // Of several join rules the last count: those that a member event names, if it names any.
        let default =
            (*self.pdu.kind() == TimelineEventType::RoomMember).then(|| &no_join_rules().0.event_id);
        Box::new(default.into_iter().chain(self.pdu.auth_events()))
    }

    fn redacts(&self) -> Option<&Self::Id> {
        self.pdu.0.redacts.as_ref()
    }

    fn rejected(&self) -> bool {
        self.rejected
    }
}
