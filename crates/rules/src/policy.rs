//! Where this network's own rules ([`crate::access`]) are asked, and about what.

use ruma::{CanonicalJsonObject, EventId, UserId, events::TimelineEventType};

use crate::{Pdu, auth::StateKey};

/// Where the question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// A user of this server sends it: a refusal is 403.
    Local,
    /// A peer asks for a template or sends an invite: a refusal is 403.
    Offer,
    /// A peer sent it: a refusal is a soft failure, never a rejection, so that all servers converge.
    Received,
    /// It is part of making or upgrading a room here: a refusal is 403 and no room.
    Create,
}

/// Who gets past the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bypass {
    /// Nobody.
    None,
    /// An administrator of this server acts.
    ServerAdmin,
}

/// The event in question, which may not have its place in the room yet.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its type.
    pub kind: &'a TimelineEventType,
    /// Its state key.
    pub state_key: Option<&'a str>,
    /// Its sender.
    pub sender: &'a UserId,
    /// Its content.
    pub content: &'a CanonicalJsonObject,
    /// For a redaction: the target.
    pub redacts: Option<&'a EventId>,
}

/// A state, by key: answers for the keys that are asked for beforehand.
pub type State<'a> = &'a (dyn Fn(&StateKey) -> Option<Pdu> + Sync);

/// Everything that the answer depends on.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The event.
    pub candidate: Candidate<'a>,
    /// The state before it.
    pub state: State<'a>,
    /// The members, whatever their membership, and the invited addresses of that state, all or so many that it makes no
    /// difference; `None`: they are not known, and what depends on them is let through.
    pub parties: Option<&'a [Pdu]>,
    /// Whether the room is in this server's public directory.
    pub listed: bool,
    /// Where it is asked.
    pub door: Door,
    /// Who gets past.
    pub bypass: Bypass,
}

impl std::fmt::Debug for Question<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Question")
            .field("candidate", &self.candidate)
            .field("door", &self.door)
            .finish_non_exhaustive()
    }
}
