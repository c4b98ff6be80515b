//! Policy servers: a room may have one sign every event before it is sent (server-server API, "Policy Servers").
//!
//! An event that is made here and lacks the signature is not committed: making it ends in [`Error::Unasked`], the policy
//! server is asked, and it is made anew, at the same time and place and so with the same id. No snapshot and, unless the
//! room changes all the time, no turn is held while the other server thinks. A received event is asked about before it is
//! judged, and soft-failed for want of a signature.

use std::{sync::Arc, time::Duration};

use chappe_rules::{
    Pdu,
    build::MAX_SIGNED_BYTES,
    check,
    policy_server::{PolicyServer, judges, state_key},
};
use chappe_store::{EventNum, state::StateKey};
use quick_cache::sync::Cache;
use ruma::{OwnedEventId, RoomId, room_version_rules::RoomVersionRules};

use crate::{
    Error, Inner, PeerError, Result,
    desk::{Desk, Held},
    peers::Purpose,
    receive::Complete,
};

/// How long a policy server may take for one event. The client that sends it waits.
const PATIENCE: Duration = Duration::from_secs(10);
/// Signatures remembered between asking and committing.
const REMEMBERED: usize = 1_000;
/// Bytes of a signature in an event, beside the name of the server.
const SIGNATURE: usize = 160;

/// The event with which a room names a policy server, and what it says.
pub(crate) type Named = (EventNum, Arc<PolicyServer>);

/// Signatures of policy servers by event: asked for, not committed yet.
pub(crate) type Signatures = Cache<OwnedEventId, Arc<str>>;

pub(crate) fn no_signatures() -> Signatures {
    Cache::new(REMEMBERED)
}

/// An event that a policy server is to sign before it may be sent.
#[derive(Debug)]
pub struct Unasked {
    by: PolicyServer,
    rules: &'static RoomVersionRules,
    pdu: Pdu,
}

impl Desk<'_> {
    /// An event made here as it may be sent: with the signature of the room's policy server, if the room, whose state in
    /// `held` has [`state_key`], has one. [`Error::Unasked`] if that server was not asked yet.
    pub(crate) async fn as_policy_wants(&self, pdu: Pdu, held: &Held) -> Result<Pdu> {
        if !judges(pdu.kind(), pdu.state_key()) {
            return Ok(pdu);
        }
        let Some((num, event)) = held.0.get(&state_key()) else { return Ok(pdu) };
        let Some(by) = PolicyServer::of(event) else { return Ok(pdu) };
        if self.is_redacted(*num).await? || !self.has(by.via()).await? {
            return Ok(pdu);
        }
        if self.inner.has_no_say(&by) {
            return Ok(pdu);
        }
        let known = self.inner.policy_signatures.get(pdu.event_id());
        let signed = known.and_then(|signature| by.countersigned(self.rules, &pdu, &signature));
        if signed.is_none() && pdu.json().len() + by.via().as_str().len() + SIGNATURE > MAX_SIGNED_BYTES {
            return Err(Error::TooLarge(
                "the event is too large to be signed by the policy server".to_owned(),
            ));
        }
        signed.ok_or_else(|| Error::Unasked(Arc::new(Unasked { by, rules: self.rules, pdu })))
    }

    /// Whether the room may have named a policy server, as far as it is known without looking.
    pub(crate) fn may_have_policy_server(&self) -> bool {
        !self.head.no_policy || self.state.is_new_key(&StateKey::policy_server())
    }

    /// Has the head say so if the room, of which it is not known yet, has never named a policy server.
    pub(crate) async fn learn_of_no_policy_server(&mut self, held: &Held) -> Result<()> {
        let (kind, key) = state_key();
        if !self.may_have_policy_server() || held.get(&kind, &key).is_some() {
            return Ok(());
        }
        let key = StateKey::policy_server();
        let known = self.reader.state_key_ids(self.nid, std::slice::from_ref(&key)).await?;
        self.head.no_policy = known.iter().all(Option::is_none) && !self.state.is_new_key(&key);
        Ok(())
    }

    /// The policy server of the room as it is committed.
    pub(crate) async fn policy_server(&self) -> Result<Option<Arc<PolicyServer>>> {
        if !self.may_have_policy_server() {
            return Ok(None);
        }
        // The name may be redacted though the state stays as it is.
        match self.named_policy_server().await? {
            Some((num, by)) if !self.inner.has_no_say(&by) && !self.is_redacted(num).await? => Ok(Some(by)),
            _ => Ok(None),
        }
    }

    async fn named_policy_server(&self) -> Result<Option<Named>> {
        let at = (self.nid, self.head.state);
        // Who is in a room whose members are to come does not follow from its state.
        let is_known = !self.head.partial;
        if let Some(known) = self.inner.policy_servers.get(&at).filter(|_| is_known) {
            return Ok(known);
        }
        let key = [StateKey::policy_server()];
        let num = self.state.state_at(&self.reader, self.state.current(), &key).await?;
        let num = num.into_iter().next().flatten();
        let event = self.pdus(num.as_slice()).await?.pop();
        let named = event.as_ref().and_then(PolicyServer::of);
        // What came without what it says may yet say it, and the state stays as it is.
        let is_lacking = named.is_none() && event.is_some_and(|event| !check::is_intact(&event));
        let mut found = num.zip(named.map(Arc::new));
        if let Some((_, by)) = &found
            && !self.has(by.via()).await?
        {
            found = None;
        }
        if is_known && !is_lacking {
            self.inner.policy_servers.insert(at, found.clone());
        }
        Ok(found)
    }
}

impl Inner {
    /// Whether a policy server has gone off the list of those that this server talks with: the rooms that it is still in go on
    /// without it. While it is not known who is on the list it keeps its say.
    fn has_no_say(&self, by: &PolicyServer) -> bool {
        self.is_outside(by.via()).unwrap_or(false)
    }

    /// Asks about an event made here and remembers the signature. [`Error::PolicyServer`] with what the server said.
    pub(crate) async fn ask_policy_server(&self, event: &Unasked) -> Result<()> {
        let Unasked { by, rules, pdu } = event;
        let signature = self.policy_signature(by, (*rules, pdu), Purpose::Sending).await;
        if matches!(signature, Err(PeerError::Unreachable(_))) {
            self.silent_judges.failed(by.via().to_owned(), self.world.instant());
        } else {
            self.silent_judges.worked(by.via());
        }
        let signature = signature.map_err(Error::PolicyServer)?;
        if by.countersigned(rules, pdu, &signature).is_none() {
            let why = "the policy server signs with another key than the room says".to_owned();
            return Err(Error::PolicyServer(PeerError::Malformed(why)));
        }
        self.policy_signatures.insert(pdu.event_id().to_owned(), signature.into());
        Ok(())
    }

    /// Has the room's policy server say what it thinks of a received event that it has not signed.
    pub(crate) async fn with_opinion(&self, mut complete: Complete) -> Complete {
        let Some(by) = complete.policy_server.clone() else { return complete };
        let pdu = complete.pdu.clone();
        let rules = complete.rules;
        if !judges(pdu.kind(), pdu.state_key()) || by.has_signed(rules, &pdu) {
            return complete;
        }
        match self.policy_signature(&by, (rules, &pdu), Purpose::Receiving).await {
            Ok(signature) => match by.countersigned(rules, &pdu, &signature) {
                Some(signed) => complete.pdu = signed,
                None => complete.unwanted = Some("the policy server's signature is wrong".to_owned()),
            },
            Err(error) => complete.unwanted = Some(format!("not signed by the policy server: {error}")),
        }
        complete
    }

    /// For what nobody waits for: [`Error::PolicyServer`] if the policy server of the room did not answer of late. Asking
    /// it would take long and most likely be in vain.
    pub(crate) async fn expect_policy_server(&self, room: &RoomId) -> Result<()> {
        let Ok(desk) = Desk::open(self, room).await else { return Ok(()) };
        match desk.policy_server().await? {
            Some(by) if self.silent_judges.holds(by.via(), self.world.instant()) => {
                Err(Error::PolicyServer(PeerError::Unreachable(by.via().to_owned())))
            }
            _ => Ok(()),
        }
    }

    async fn policy_signature(
        &self,
        by: &PolicyServer,
        (rules, pdu): (&'static RoomVersionRules, &Pdu),
        purpose: Purpose,
    ) -> Result<String, PeerError> {
        if by.via() == self.server
            && let Some(judge) = &*self.judge.get()
        {
            return judge.sign(rules, pdu, &self.server);
        }
        let asked = self.peers.policy_signature(by.via(), pdu.to_raw(), purpose);
        let answer = self.world.timeout(PATIENCE, asked).await;
        answer.unwrap_or_else(|| Err(PeerError::Unreachable(by.via().to_owned())))
    }
}
