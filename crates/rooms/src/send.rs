//! `send`: a local user's draft becomes an event.

use chappe_rules::policy::Bypass;
use chappe_store::transactions::TransactionKey;
use ruma::{OwnedEventId, RoomId, UserId, events::TimelineEventType};

use crate::{Actor, Draft, Error, Result, Rooms, Standing, Transaction, turn::Job};

/// What the policy makes of an actor.
pub(crate) fn bypass_of(actor: &Actor) -> Bypass {
    match actor.standing {
        Standing::Ordinary => Bypass::None,
        Standing::Administrator => Bypass::ServerAdmin,
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
        let txn = txn.map(|txn| transaction_key(actor, room, &draft, &txn));
        if let Some(target) = invited(&draft)
            && target.server_name() != self.server()
        {
            return self.invite_remote(actor, room, &target, draft.content).await;
        }
        if draft.kind == TimelineEventType::RoomCanonicalAlias && draft.state_key.as_deref() == Some("") {
            self.check_canonical_alias(actor, room, &draft.content).await?;
        }
        let job = Job { sender: actor.user.clone(), bypass: bypass_of(actor), draft, txn };
        self.submit(room, job).await
    }
}

fn transaction_key(actor: &Actor, room: &RoomId, draft: &Draft, txn: &Transaction) -> TransactionKey {
    let what = if draft.redacts.is_some() { "redact" } else { "send" };
    TransactionKey {
        user: actor.user.clone(),
        // An application service may act without a device.
        device: actor.device.clone().unwrap_or_else(|| "".into()),
        scope: format!("{what}/{room}/{}", draft.kind),
        txn: txn.to_string(),
    }
}

/// Whom a draft invites: another server's user must be invited through that server.
fn invited(draft: &Draft) -> Option<ruma::OwnedUserId> {
    if draft.kind != TimelineEventType::RoomMember || draft.content.get("membership")?.as_str()? != "invite" {
        return None;
    }
    UserId::parse(draft.state_key.as_deref()?).ok()
}

/// A refusal for rooms the asker is not in.
pub(crate) fn not_in_room() -> Error {
    Error::Forbidden("you are not in this room".to_owned())
}
