//! This network's own rules on top of Matrix: one question, asked at the same doors always.

use ruma::{CanonicalJsonObject, ServerName, UserId, events::TimelineEventType};

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
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Allow,
    /// Refused, with a sentence for the user.
    Refuse(String),
}

/// A profile of rules.
pub trait Policy: Send + Sync {
    /// The state keys that judging `candidate` reads.
    fn state_needed(&self, candidate: &Candidate<'_>) -> Vec<StateKey>;

    /// Judges `candidate` at the state before it. `origin` is the server that it comes from.
    fn allowed(
        &self,
        candidate: &Candidate<'_>,
        state: &dyn Fn(&StateKey) -> Option<Pdu>,
        origin: &ServerName,
        door: Door,
        bypass: Bypass,
    ) -> Verdict;

    /// Whether a server takes part in the network: a room with members elsewhere is not entered, and who is elsewhere is not
    /// shown to be invited.
    fn takes_part(&self, _: &ServerName) -> bool {
        true
    }
}

/// A plain Matrix server: the authorization rules of the room version are all there is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Policy for Plain {
    fn state_needed(&self, _: &Candidate<'_>) -> Vec<StateKey> {
        Vec::new()
    }

    fn allowed(
        &self,
        _: &Candidate<'_>,
        _: &dyn Fn(&StateKey) -> Option<Pdu>,
        _: &ServerName,
        _: Door,
        _: Bypass,
    ) -> Verdict {
        Verdict::Allow
    }
}
