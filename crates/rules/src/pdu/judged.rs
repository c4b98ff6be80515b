//! An event as authorization and state resolution take it.

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, UserId, events::TimelineEventType, state_res::Event,
};
use serde_json::value::RawValue;

use super::Pdu;

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
        self.0.origin_server_ts
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.0.kind
    }

    fn content(&self) -> &RawValue {
        self.0.to_judge.as_ref().unwrap_or(&self.0.content)
    }

    fn state_key(&self) -> Option<&str> {
        self.0.state_key.as_deref()
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
        self.pdu.kind()
    }

    fn content(&self) -> &RawValue {
        Event::content(&self.pdu)
    }

    fn state_key(&self) -> Option<&str> {
        self.pdu.state_key()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_> {
        Box::new(self.pdu.prev_events().iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_> {
        Box::new(self.pdu.auth_events().iter())
    }

    fn redacts(&self) -> Option<&Self::Id> {
        self.pdu.0.redacts.as_ref()
    }

    fn rejected(&self) -> bool {
        self.rejected
    }
}
