//! What users who are erased said, for those who were not in the room then: redacted. Nobody is told so, and the event stays
//! whole for whoever was there.
//!
//! Specification: client-server API, `erase` of `POST /account/deactivate`.

use std::collections::BTreeSet;

use chappe_store::{EventNum, StateRef, state::StateKey};
use ruma::{UserId, events::room::member::MembershipState};

use crate::{
    Result,
    read::view::{Event, View},
};

impl View<'_> {
    /// Redacts those of the events, which somebody sees who was not in the room then, that erased users sent.
    pub(crate) async fn veil(&self, events: Vec<&mut Event>) -> Result<()> {
        let veiled = self.of_erased(&events.iter().map(|event| &**event).collect::<Vec<_>>()).await?;
        for event in events {
            if veiled.contains(&event.num) {
                event.erase(self.rules)?;
            }
        }
        Ok(())
    }

    /// The same for the state just before or after an event, or at one moment, as `user` is told it: it is whole for those who
    /// were in the room at one of these moments.
    pub async fn veil_state(&self, user: &UserId, at: &[StateRef], events: Vec<&mut Event>) -> Result<()> {
        let told = self.sent_by_erased(events);
        if told.is_empty() || self.part(user).await?.oversees {
            return Ok(());
        }
        let judged = self.judge_states(user, at).await?;
        if judged.values().any(|at| at.membership == MembershipState::Join) {
            return Ok(());
        }
        self.veil(told).await
    }

    /// The same for events that `user` is told whatever the history visibility: those are whole at which the user was in the
    /// room.
    pub(crate) async fn veil_earlier(&self, user: &UserId, events: Vec<&mut Event>) -> Result<()> {
        let mut told = self.sent_by_erased(events);
        if told.is_empty() {
            return Ok(());
        }
        let states: Vec<StateRef> = told.iter().map(|event| event.meta.before).collect();
        let judged = self.judge_states(user, &states).await?;
        let was_in = |at: &StateRef| judged.get(at).is_some_and(|at| at.membership == MembershipState::Join);
        told.retain(|event| !was_in(&event.meta.before));
        self.veil(told).await
    }

    fn sent_by_erased<'e>(&self, mut events: Vec<&'e mut Event>) -> Vec<&'e mut Event> {
        events.retain(|event| self.inner.accounts.is_erased(event.pdu.sender()));
        events
    }

    /// Those of the events that erased users sent, and that still say something. State that holds is told whole, as the state
    /// of the room is: without it the room could not be read. Nothing is read where nobody is erased.
    pub(super) async fn of_erased(&self, events: &[&Event]) -> Result<BTreeSet<EventNum>> {
        let says_more =
            |event: &&Event| !event.is_redacted() && self.inner.accounts.is_erased(event.pdu.sender());
        let told: Vec<&Event> = events.iter().copied().filter(says_more).collect();
        let mut veiled: BTreeSet<EventNum> = told.iter().map(|event| event.num).collect();
        let keys = told.iter().filter_map(|event| event.pdu.state());
        let keys: Vec<StateKey> = keys.map(|(kind, key)| StateKey::new(kind, key)).collect();
        if !keys.is_empty() {
            for holding in self.reader.state_now(self.nid, &keys).await?.into_iter().flatten() {
                veiled.remove(&holding);
            }
        }
        Ok(veiled)
    }
}
