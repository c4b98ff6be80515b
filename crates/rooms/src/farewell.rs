//! What becomes of a closed account's memberships.

use chappe_store::Membership;
use ruma::{OwnedRoomId, OwnedUserId, UserId};

use crate::{Actor, Error, Result, Rooms};

/// How long rooms that cannot be left are tried again, in milliseconds.
const INSISTED_MS: u64 = 24 * 60 * 60 * 1_000;

/// What came of leaving all rooms of a closed account.
#[derive(Debug, Default)]
pub struct Departure {
    /// Rooms left, invites and knocks taken back.
    pub left: usize,
    /// Rooms that could not be left, to be tried again.
    pub failed: Vec<(OwnedRoomId, Error)>,
}

impl Rooms {
    /// Starts leaving the rooms of a user whose account was closed and answers at once. What a stop or a failure
    /// interrupts is taken up by [`Rooms::finish_departures`].
    pub fn leave_all(&self, user: OwnedUserId) {
        let rooms = self.clone();
        drop(self.0.world.spawn("leave-all", async move {
            let departed = tokio::select! {
                biased;
                () = rooms.0.world.stopping() => return,
                departed = rooms.depart(&user) => departed,
            };
            match departed {
                Ok(departure) => departure.tell(&user),
                Err(error) => tracing::warn!(%user, %error, "a closed account's rooms were not left yet"),
            }
        }));
    }

    /// Leaves every room of a user whose account was closed, and takes back its invites and knocks.
    pub async fn depart(&self, user: &UserId) -> Result<Departure> {
        let actor = Actor::user(user);
        let mut departure = Departure::default();
        for room in self.all_of(user).await? {
            match self.depart_from(&actor, &room, None).await {
                Ok(()) => departure.left += 1,
                Err(error) => departure.failed.push((room, error)),
            }
        }
        if departure.failed.is_empty() {
            self.0.accounts.departed(user).await?;
        }
        Ok(departure)
    }

    /// Goes on with the closed accounts whose rooms could not all be left. Meant to be called when the server starts and
    /// every few minutes; after a day it gives up.
    pub async fn finish_departures(&self) -> Result<()> {
        for (user, since) in self.0.accounts.departing().await? {
            let departure = self.depart(&user).await?;
            departure.tell(&user);
            if self.0.world.now().saturating_sub(since) > INSISTED_MS {
                self.0.accounts.departed(&user).await?;
            }
        }
        Ok(())
    }

    /// Rooms with a membership that can be left.
    async fn all_of(&self, user: &UserId) -> Result<Vec<OwnedRoomId>> {
        let reader = self.0.store.read();
        let mut rooms = Vec::new();
        for (nid, at) in reader.user_rooms(user).await? {
            if !matches!(at.value.membership, Membership::Leave | Membership::Ban) {
                rooms.push(reader.room_id(nid).await?);
            }
        }
        rooms.extend(reader.out_of_bands(user).await?.into_iter().map(|(room, _)| room));
        Ok(rooms)
    }
}

impl Departure {
    fn tell(&self, user: &UserId) {
        for (room, error) in &self.failed {
            tracing::warn!(%user, %room, %error, "a closed account's room was not left yet");
        }
    }
}
