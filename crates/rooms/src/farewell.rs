//! What becomes of a closed account's memberships.

use std::time::Duration;

use chappe_store::Membership;
use futures_util::{StreamExt, stream};
use ruma::{OwnedRoomId, OwnedUserId, UserId};

use crate::{Actor, Error, Result, Rooms};

/// How long rooms that cannot be left are tried again, in milliseconds.
const INSISTED_MS: u64 = 24 * 60 * 60 * 1_000;

/// How long the rooms of one account may take at a time.
const PATIENCE: Duration = Duration::from_mins(1);
/// Accounts whose rooms are left side by side.
const SIDE_BY_SIDE: usize = 4;

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
            let expected = self.0.expect_policy_server(&room).await;
            let left = match expected {
                Ok(()) => self.depart_from(&actor, &room, None).await,
                Err(error) => Err(error),
            };
            match left {
                Ok(()) => departure.left += 1,
                Err(error) => departure.failed.push((room, error)),
            }
        }
        if departure.failed.is_empty() {
            self.0.accounts.departed(user).await?;
        }
        Ok(departure)
    }

    /// Goes on with the closed accounts whose rooms could not all be left, with each of them less and less often. Meant to
    /// be called when the server starts and every few minutes; after a day it gives up.
    pub async fn finish_departures(&self) -> Result<()> {
        let due = self.0.accounts.departing().await?.into_iter();
        let due = due.filter(|(user, _)| !self.0.departing.holds(user, self.0.world.instant()));
        let finishing = due.map(|(user, since)| async move { self.finish_departure(&user, since).await });
        let finishing = stream::iter(finishing).buffer_unordered(SIDE_BY_SIDE);
        finishing.fold(Ok(()), |done, finished| async { done.and(finished) }).await
    }

    async fn finish_departure(&self, user: &UserId, since: u64) -> Result<()> {
        let world = &self.0.world;
        let is_gone = match world.timeout(PATIENCE, Box::pin(self.depart(user))).await {
            Some(departure) => {
                let departure = departure?;
                departure.tell(user);
                departure.failed.is_empty()
            }
            None => {
                tracing::warn!(%user, "a closed account's rooms take long to leave");
                false
            }
        };
        if is_gone {
            self.0.departing.worked(user);
        } else if world.now().saturating_sub(since) > INSISTED_MS {
            self.0.departing.worked(user);
            self.0.accounts.departed(user).await?;
        } else {
            self.0.departing.failed(user.to_owned(), world.instant());
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
        let list = reader.out_of_band_list(user).await?.into_iter();
        rooms.extend(list.filter(|(_, at)| !at.value.is_over()).map(|(room, _)| room));
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

#[cfg(test)]
mod tests {
    use std::{sync::atomic::Ordering, time::Duration};

    use chappe_accounts::{Erase, NewUser};
    use chappe_kv::{Db, Memory};
    use ruma::user_id;

    use crate::tests::net::{Net, rooms_without_answer};

    #[tokio::test(start_paused = true)]
    async fn rooms_that_cannot_be_left_are_tried_less_and_less_and_given_up() {
        let (net, alice) = (Net::default(), user_id!("@alice:a.example"));
        let rooms = net.server_on("a.example", 1, Db::new(Memory::default()));
        let accounts = &rooms.0.accounts;
        let new = NewUser { localpart: Some("alice".to_owned()), ..NewUser::default() };
        accounts.create_user(new).await.unwrap();
        let asked = rooms_without_answer(&net, &rooms, alice.as_str(), 3).await;
        accounts.deactivate(alice, Erase::No).await.unwrap();
        for _ in 0..27 * 12 {
            rooms.finish_departures().await.unwrap();
            tokio::time::advance(Duration::from_mins(5)).await;
        }
        let asked = asked.load(Ordering::Relaxed);
        assert!((5..30).contains(&asked), "{asked}");
        assert!(accounts.departing().await.unwrap().is_empty());
    }
}
