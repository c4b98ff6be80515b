//! `send`: a local user's draft becomes an event.

use chappe_rules::{access::RULES, policy::Bypass};
use chappe_store::transactions::TransactionKey;
use ruma::{OwnedEventId, RoomId, UserId, events::TimelineEventType};
use serde_json::{Map, Value};

use crate::{
    Access, Actor, Draft, Error, Result, Rooms, Standing, Transaction, membership::THIRD_PARTY, turn::Job,
};

/// What the policy makes of an actor.
pub(crate) fn bypass_of(actor: &Actor) -> Bypass {
    match actor.standing {
        Standing::Ordinary | Standing::Guest => Bypass::None,
        Standing::Administrator | Standing::Overseer => Bypass::ServerAdmin,
    }
}

impl Rooms {
    /// Makes `draft` an event of `room`, once per transaction id: committed and durable when it answers.
    /// Redactions and state events (memberships included) go this way too.
    pub async fn send(
        &self,
        actor: &Actor,
        room: &RoomId,
        draft: Draft,
        txn: Option<Transaction>,
    ) -> Result<OwnedEventId> {
        let done = self.send_unveiled(actor, room, draft, txn).await;
        self.veiled(actor, room, done).await
    }

    async fn send_unveiled(
        &self,
        actor: &Actor,
        room: &RoomId,
        mut draft: Draft,
        txn: Option<Transaction>,
    ) -> Result<OwnedEventId> {
        let txn = txn.map(|txn| transaction_key(actor, room, &draft, &txn));
        if let Some(target) = invited(&draft)
            && target.server_name() != self.server()
        {
            self.check_block(room).await?;
            draft.content.remove(THIRD_PARTY);
            return self.invite_remote(actor, room, &target, draft.content).await;
        }
        self.complete(actor, room, &mut draft).await?;
        if let Some(same) = self.unchanged(actor, room, &draft).await? {
            return Ok(same);
        }
        let enters = draft.state_key.as_deref() == Some(actor.user.as_str())
            && ["join", "knock"].iter().any(|membership| says_membership(&draft, membership));
        let sending = self.submit(room, Job { txn, ..Job::new(actor, draft) });
        if enters { self.0.joins.hold(&actor.user, room, sending).await } else { sending.await }
    }

    /// Judges a draft by what is outside its room, and puts into it what is the server's to say.
    pub(crate) async fn complete(&self, actor: &Actor, room: &RoomId, draft: &mut Draft) -> Result<()> {
        if draft.kind == TimelineEventType::RoomMember {
            draft.content.remove(THIRD_PARTY);
        }
        if let Some(target) = invited(draft) {
            self.check_block(room).await?;
            self.check_welcome(&actor.user, &target).await?;
        }
        if draft.kind == TimelineEventType::RoomCanonicalAlias && draft.state_key.as_deref() == Some("") {
            self.check_canonical_alias(actor, room, &draft.content).await?;
        }
        if draft.kind.to_string() == RULES && draft.state_key.as_deref() == Some("") {
            self.say_as_before(room, &mut draft.content).await?;
        }
        if says_membership(draft, "join") && draft.state_key.as_deref() == Some(actor.user.as_str()) {
            self.complete_own_join(actor, room, &mut draft.content).await?;
        }
        if says_membership(draft, "leave") && draft.state_key.as_deref() == Some(actor.user.as_str()) {
            self.check_leave(&actor.user, room).await?;
        }
        Ok(())
    }

    /// The event that already says what a member's state draft says, word for word: nothing has to be sent then.
    async fn unchanged(&self, actor: &Actor, room: &RoomId, draft: &Draft) -> Result<Option<OwnedEventId>> {
        let Some(state_key) = &draft.state_key else { return Ok(None) };
        let Ok(view) = self.view(room).await else { return Ok(None) };
        if view.access(&actor.user).await.ok() != Some(Access::Joined) {
            return Ok(None);
        }
        let current = view.current(draft.kind.to_string().into(), state_key).await?;
        let same = current.filter(|event| {
            *event.pdu.sender() == actor.user
                && event
                    .pdu
                    .content_as::<Map<String, Value>>()
                    .is_some_and(|content| content == draft.content)
        });
        Ok(same.map(|event| event.pdu.event_id().to_owned()))
    }
}

pub(crate) fn transaction_key(
    actor: &Actor,
    room: &RoomId,
    draft: &Draft,
    txn: &Transaction,
) -> TransactionKey {
    let scope = match &draft.redacts {
        Some(target) => format!("redact/{room}/{target}"),
        None => format!("send/{room}/{}", draft.kind),
    };
    TransactionKey {
        user: actor.user.clone(),
        // An application service may act without a device.
        device: actor.device.clone().unwrap_or_else(|| "".into()),
        scope,
        txn: txn.to_string(),
    }
}

/// Whom a draft invites: another server's user must be invited through that server.
fn invited(draft: &Draft) -> Option<ruma::OwnedUserId> {
    if !says_membership(draft, "invite") {
        return None;
    }
    UserId::parse(draft.state_key.as_deref()?).ok()
}

/// Whether a draft gives somebody this membership.
pub(crate) fn says_membership(draft: &Draft, membership: &str) -> bool {
    draft.kind == TimelineEventType::RoomMember
        && draft.content.get("membership").and_then(Value::as_str) == Some(membership)
}

/// A refusal for rooms the asker is not in.
pub(crate) fn not_in_room() -> Error {
    Error::Forbidden("you are not in this room".to_owned())
}

#[cfg(test)]
mod tests {
    use ruma::EventId;
    use serde_json::json;

    use crate::{
        Draft,
        testing::{Town, actor},
    };

    #[tokio::test]
    async fn the_same_transaction_redacts_every_event_that_it_names() {
        let (town, anna) = (Town::new(), actor("anna"));
        let room = town.room(&anna, json!({})).await;
        let one = town.say(&anna, &room, json!({ "body": "one" })).await;
        let two = town.say(&anna, &room, json!({ "body": "two" })).await;
        let redact = async |event: &EventId| {
            let draft = Draft::redaction(event, None);
            town.rooms.send(&anna, &room, draft, Some("1".into())).await.unwrap()
        };
        let first = redact(&one).await;
        assert_ne!(redact(&two).await, first);
        assert_eq!(redact(&one).await, first, "the same request gives the same event");
        for event in [&one, &two] {
            let seen = town.rooms.visible_to_user(&anna.user, &room, event).await.unwrap();
            assert!(seen.event.is_redacted());
        }
    }
}
