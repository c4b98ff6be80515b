//! Messages of one transaction that follow each other are checked together and share a commit.
//!
//! Only the plain case is done here: each follows all that is in the room, nothing is missing, nothing is redacted, the state
//! stays as it is. Whatever is otherwise is left to be taken by itself.

use chappe_rules::{Pdu, auth::events_needed};
use ruma::{OwnedRoomId, RoomId, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Complete, Outcome, Proven,
    check::{allowed_by_acl, parse},
    complete::Before,
    judge::{Follows, Verdict},
};
use crate::{
    Inner, Result,
    desk::{Desk, Placing, Source},
    turn::ATTEMPTS,
};

/// As much of an event as says whether it is a message of a room.
#[derive(Deserialize)]
struct Peek {
    room_id: OwnedRoomId,
    #[serde(rename = "type")]
    kind: String,
    state_key: Option<serde::de::IgnoredAny>,
}

/// The room of a message; none of what else an event may be.
fn room_of(raw: &RawValue) -> Option<OwnedRoomId> {
    let peek: Peek = serde_json::from_str(raw.get()).ok()?;
    (peek.state_key.is_none() && peek.kind != "m.room.redaction").then_some(peek.room_id)
}

/// What became of the first of some events.
pub(super) struct Together {
    /// Those that were taken: maybe none.
    pub(super) taken: Vec<Outcome>,
    /// How many were looked at; those not taken need more than is done here.
    pub(super) of: usize,
}

impl Together {
    pub(super) fn none(of: usize) -> Self {
        Self { taken: Vec::new(), of }
    }
}

impl Inner {
    /// Takes as many of the first events as can share a commit, of one room. They are on disk when it answers.
    pub(super) async fn receive_together(
        &self,
        origin: &ServerName,
        raws: &[Box<RawValue>],
    ) -> Result<Together> {
        let Some(room) = raws.first().and_then(|raw| room_of(raw)) else { return Ok(Together::none(1)) };
        let same = raws.iter().take_while(|raw| room_of(raw).as_ref() == Some(&room));
        let raws = &raws[..same.count()];
        if raws.len() < 2 {
            return Ok(Together::none(raws.len()));
        }
        let desk = Desk::open(self, &room).await?;
        let plain = desk.is_here().await? && !desk.head.partial && desk.policy_server().await?.is_none();
        if !plain || allowed_by_acl(&desk, origin).await.is_err() {
            return Ok(Together::none(raws.len()));
        }
        let rules = desk.rules;
        drop(desk);
        let parsed = raws.iter().map_while(|raw| parse(rules, &room, raw).ok()).collect();
        let proven = self.check_all(rules, parsed).await.into_iter();
        let proven: Vec<Proven> = proven.map_while(|proven| proven.ok()?.if_pushed_by(origin).ok()).collect();
        let taken = self.append_together(origin, &room, &proven).await?;
        Ok(Together { taken, of: raws.len() })
    }

    async fn append_together(
        &self,
        origin: &ServerName,
        room: &RoomId,
        events: &[Proven],
    ) -> Result<Vec<Outcome>> {
        let _turn = self.turn(room).await;
        for _ in 0..ATTEMPTS {
            let mut desk = Desk::open(self, room).await?;
            if desk.head.partial || desk.policy_server().await?.is_some() {
                return Ok(Vec::new());
            }
            let source = super::source_for(self, origin);
            let mut taken = Vec::new();
            for pdu in events.iter().map(Proven::pdu) {
                if !desk.append_plain(pdu, source).await? {
                    break;
                }
                taken.push(Outcome { event_id: Some(pdu.event_id().to_owned()), result: Ok(()) });
            }
            if taken.is_empty() {
                return Ok(taken);
            }
            match self.store.commit(desk.seal()).await {
                Ok(_) => return Ok(taken),
                Err(chappe_store::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Vec::new())
    }
}

impl Desk<'_> {
    /// Puts a message at the live end if nothing stands in the way: false, and nothing is done, if something does.
    async fn append_plain(&mut self, pdu: &Pdu, source: Source) -> Result<bool> {
        let known = self.nums(std::slice::from_ref(&pdu.event_id().to_owned())).await?;
        let prev = self.nums(pdu.prev_events()).await?.into_iter().collect::<Option<Vec<_>>>();
        let (false, Some(prev)) = (known.iter().any(Option::is_some), prev) else { return Ok(false) };
        let (mut heads, mut before) = (self.head.extremities.clone(), prev.clone());
        heads.sort_unstable();
        before.sort_unstable();
        let needed = self.nums(&events_needed(self.rules, pdu)).await?;
        let is_new = matches!(self.own_num(pdu).await, Ok(None));
        if heads != before || needed.iter().any(Option::is_none) || !is_new {
            return Ok(false);
        }
        let at = self.state.current();
        let complete = Complete::alone(pdu.clone(), self.rules, source, Before::Prevs);
        if complete.verdict(self, at, Follows::All).await? != Verdict::Accepted {
            return Ok(false);
        }
        let auth = self.nums(pdu.auth_events()).await?.into_iter().flatten().collect();
        self.append(Placing { pdu: pdu.clone(), auth, prev, missing: Vec::new(), stored: None, source })
            .await?;
        Ok(true)
    }
}
