//! Typing and presence between local devices and other servers: what delivery keeps in memory, federation carries.

use std::time::Duration;

use async_trait::async_trait;
use chappe_delivery::{Delivery, PresenceState};
use chappe_federation::{Federation, PresenceNews, RemoteActivity};
use chappe_world::World;
use ruma::{RoomId, UserId, api::federation::transactions::edu::PresenceUpdate};
use tokio::sync::broadcast::error::RecvError;

/// A longer status message of a remote user is left out, in bytes.
const LONGEST_STATUS: usize = 1_024;

/// Shows local users what remote users do.
pub(crate) struct Inward {
    pub(crate) world: World,
    pub(crate) delivery: Delivery,
}

#[async_trait]
impl RemoteActivity for Inward {
    async fn typing(&self, room: &RoomId, user: &UserId, typing: bool) {
        if let Err(error) = self.delivery.typing().set_remote(room, user, typing).await {
            tracing::warn!(%error, "a remote user's typing was lost");
        }
    }

    async fn presence(&self, update: PresenceUpdate) {
        let ago = Duration::from_millis(update.last_active_ago.into());
        let now = self.world.instant();
        let presence = PresenceState {
            state: update.presence,
            status_msg: update.status_msg.filter(|text| text.len() <= LONGEST_STATUS),
            last_active: now.checked_sub(ago).unwrap_or(now),
            currently_active: update.currently_active,
        };
        if let Err(error) = self.delivery.presence().set_remote(&update.user_id, presence).await {
            tracing::warn!(%error, "a remote user's presence was lost");
        }
    }
}

/// Tells other servers what local users do, until the world stops.
pub(crate) fn start(world: &World, delivery: &Delivery, federation: &Federation) {
    world.spawn("typing to others", typing(world.clone(), delivery.clone(), federation.clone()));
    // Also while presence is switched off: there are no news then, and it may be switched on.
    world.spawn("presence to others", presence(world.clone(), delivery.clone(), federation.clone()));
}

async fn typing(world: World, delivery: Delivery, federation: Federation) {
    let mut changes = delivery.typing().changes();
    loop {
        let change = tokio::select! {
            biased;
            () = world.stopping() => return,
            change = changes.recv() => change,
        };
        match change {
            Ok(change) => {
                let told = federation.send_typing(&change.room, &change.user, change.typing).await;
                if let Err(error) = told {
                    tracing::warn!(%error, "typing was not told to other servers");
                }
            }
            Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "typing was not told to other servers"),
            Err(RecvError::Closed) => return,
        }
    }
}

async fn presence(world: World, delivery: Delivery, federation: Federation) {
    let mut changes = delivery.presence().news();
    loop {
        let some = tokio::select! {
            biased;
            () = world.stopping() => return,
            some = changes.recv() => some,
        };
        match some {
            Ok(some) => {
                let own = some.iter().filter(|change| change.local);
                let news: Vec<_> =
                    own.map(|change| (change.user.clone(), news(&world, &change.now))).collect();
                if let Err(error) = federation.send_presence(&news).await {
                    tracing::warn!(%error, "presence was not told to other servers");
                }
            }
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "presence was not told to other servers");
            }
            Err(RecvError::Closed) => return,
        }
    }
}

fn news(world: &World, state: &PresenceState) -> PresenceNews {
    let ago = world.instant().saturating_duration_since(state.last_active).as_millis();
    PresenceNews {
        presence: state.state.to_string(),
        status: state.status_msg.clone(),
        last_active_ago: u64::try_from(ago).unwrap_or(u64::MAX),
        currently_active: state.currently_active,
    }
}
