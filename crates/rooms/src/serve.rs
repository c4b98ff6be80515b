//! The inbound halves of the federation handshakes and what other servers may read.

mod accept;
mod invite;
pub(crate) mod policy;
mod read;
mod template;
mod third_party;

use ruma::OwnedEventId;
use serde_json::value::RawValue;

pub use self::{accept::AcceptedJoin, third_party::BoundInvite};

/// A membership event that another server made and signed.
#[derive(Clone, Debug)]
pub struct SignedMember {
    /// The event id in the request's path; it must be the event's.
    pub event_id: OwnedEventId,
    /// The event.
    pub pdu: Box<RawValue>,
}
