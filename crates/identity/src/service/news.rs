//! The worker: binds the addresses of new accounts, tells homeservers what waited for an address, turns the pepper.

use std::time::Duration;

use chappe_store::{
    Direction, Json, Tx,
    identity_service::{
        Association, Associations, Binding, Invite, InviteTokens, News, Notice, Notices, WaitingInvites,
    },
};
use futures_util::future::join_all;
use ruma::{CanonicalJsonObject, CanonicalJsonValue, OwnedRoomId, OwnedUserId, ServerName, UserId};
use serde_json::{Value, json};

use super::{EMAIL, HomeserverError, IdentityService, Message};
use crate::Error;

/// News dealt with in one go.
const AT_ONCE: usize = 50;
/// Addresses of which a server that is new to the network is told in one go, and the pause after that, in milliseconds.
const TOLD_AT_ONCE: usize = 20;
const PAUSE: u64 = 200;
/// Invitations that are read for one address.
const WAITING: usize = 1000;
/// The longest sleep: expired invitations and the pepper are looked at so often.
const LONGEST: Duration = Duration::from_mins(5);
/// The first wait after a failure, in milliseconds; it doubles up to [`LAST_WAIT`].
const FIRST_WAIT: u64 = 5_000;
const LAST_WAIT: u64 = 4 * 3_600_000;
/// After so many failures, about a week, a homeserver outside of the network is left alone, and anybody with an invitation.
const TRIES: u32 = 50;

/// An invitation on its way: token, room, inviting user.
type Underway = (String, OwnedRoomId, OwnedUserId);

impl IdentityService {
    /// Works until the world stops.
    pub async fn run(&self) {
        while !self.world().is_stopping() {
            let sleep = match self.work().await {
                Ok(sleep) => sleep,
                Err(error) => {
                    tracing::warn!(%error, "identity service upkeep");
                    Duration::from_secs(5)
                }
            };
            tokio::select! {
                biased;
                () = self.world().stopping() => break,
                () = self.inner.work.notified() => {}
                () = self.world().sleep(sleep) => {}
            }
        }
    }

    /// Has the worker look at what there is to do: an address is to be bound, or was.
    pub fn wake(&self) {
        self.inner.work.notify_one();
    }

    /// Does all that is due; gives how long nothing is.
    pub async fn work(&self) -> Result<Duration, Error> {
        self.greet().await?;
        while self.bind_wanted().await? {}
        let next = loop {
            let now = self.world().now();
            let rows = self.store().read().scan::<Notices>(&(), Direction::Forward, AT_ONCE).await?;
            let next = rows.first().map(|((at, _), _)| *at);
            let due: Vec<_> = rows.into_iter().take_while(|((at, _), _)| *at <= now).collect();
            if due.is_empty() {
                break next;
            }
            if self.world().is_stopping() {
                return Ok(Duration::ZERO);
            }
            // Together: one server that does not answer holds nobody else up.
            let dealt = due.into_iter().map(|(key, Json(notice))| self.deal_with(key, notice));
            for done in join_all(dealt).await {
                done?;
            }
        };
        self.sweep_invites().await?;
        match self.turn_pepper_if_due().await {
            // Somebody bound an address meanwhile: next time.
            Ok(()) | Err(Error::Store(chappe_store::Error::Conflict)) => {}
            Err(error) => return Err(error),
        }
        let until = next.map_or(LONGEST, |at| Duration::from_millis(at.saturating_sub(self.world().now())));
        Ok(until.clamp(Duration::from_millis(10), LONGEST))
    }

    async fn deal_with(&self, key: (u64, String), notice: Notice) -> Result<(), Error> {
        let told = match (&notice.to, &notice.news) {
            (None, News::Bound(bound)) if self.holds(&notice.news).await? => {
                return self.collect(key, bound).await;
            }
            (None, News::Ended(ended)) => {
                let mut tx = Tx::new();
                tx.delete::<Notices>(&key);
                self.tell_all(&mut tx, &key.1, &ended.user, &notice.news);
                self.store().commit(tx).await?;
                return Ok(());
            }
            (None, News::Closed { user, at }) if self.unbind_everywhere(user, *at).await? => Ok(()),
            (None, News::Closed { .. }) => Err(HomeserverError::Unreachable),
            (Some(to), News::Everything { after }) => {
                return self.introduce(key, &notice, to, after).await;
            }
            (_, News::Awaited { binding, invites }) if !self.holds(&notice.news).await? => {
                return self.give_back(key, binding, invites).await;
            }
            (_, News::Awaited { binding, invites }) => {
                self.inner.homeservers.onbind(&binding.user, self.onbind(binding, invites)).await
            }
            (Some(to), news) => match self.message_of(news).await? {
                Some(message) => self.inner.homeservers.tell(to, json!(message)).await,
                None => Ok(()),
            },
            (None, News::Bound(_) | News::Invited(_) | News::Everything { .. }) => Ok(()),
        };
        let mut tx = Tx::new();
        tx.delete::<Notices>(&key);
        match told {
            Ok(()) => tracing::debug!(tries = notice.tries, "another server was told of an address"),
            Err(HomeserverError::Refused(why)) => {
                tracing::info!(to = ?notice.to, why, "another server refused the news of an address");
            }
            Err(HomeserverError::Unreachable) => self.later(&mut tx, key.1, notice),
        }
        self.store().commit(tx).await?;
        Ok(())
    }

    /// The same once more, after a wait that doubles; not for ever, but for a server of the network: nobody tells it later whose an
    /// address is.
    fn later(&self, tx: &mut Tx, id: String, notice: Notice) {
        let is_of_addresses =
            matches!(notice.news, News::Everything { .. } | News::Bound(_) | News::Ended(_));
        let lasts = is_of_addresses && notice.to.as_ref().is_some_and(|to| self.others().contains(to));
        if notice.tries >= TRIES && !lasts {
            tracing::warn!(to = ?notice.to, "another server was not reached with the news of an address: given up");
            return;
        }
        let wait = FIRST_WAIT.saturating_mul(1 << notice.tries.min(20)).min(LAST_WAIT);
        let at = self.world().now() + wait + self.world().below(wait / 4);
        tx.put::<Notices>(&(at, id), &Json(Notice { tries: notice.tries.saturating_add(1), ..notice }));
    }

    /// Tells a server that is new to the network of the next addresses of this server's users.
    async fn introduce(
        &self,
        key: (u64, String),
        notice: &Notice,
        to: &ServerName,
        after: &str,
    ) -> Result<(), Error> {
        let from = (EMAIL.to_owned(), format!("{after}\u{1}"));
        let rows =
            self.store().read().scan_from::<Associations>(&EMAIL.to_owned(), &from, TOLD_AT_ONCE).await?;
        let last =
            rows.last().filter(|_| rows.len() == TOLD_AT_ONCE).map(|((_, address), _)| address.clone());
        let own = rows.into_iter().filter(|(_, Json(bound))| bound.user.server_name() == self.server());
        let told = own.map(|((medium, address), Json(bound))| {
            let message = Message::Bound(Binding { medium, address, user: bound.user, at: bound.at });
            self.inner.homeservers.tell(to, json!(message))
        });
        let told = join_all(told).await;
        let mut tx = Tx::new();
        tx.delete::<Notices>(&key);
        if told.iter().any(|told| matches!(told, Err(HomeserverError::Unreachable))) {
            self.later(&mut tx, key.1, notice.clone());
        } else if let Some(after) = last {
            // Not at once: others have news as well.
            let at = self.world().now() + PAUSE;
            let news = News::Everything { after };
            tx.put::<Notices>(&(at, key.1), &Json(Notice { tries: 0, news, ..notice.clone() }));
        }
        self.store().commit(tx).await?;
        Ok(())
    }

    /// Takes the invitations that wait for the address: from now on they are on their way. Those that other servers keep are
    /// theirs to hand on, once they know.
    async fn collect(&self, key: (u64, String), bound: &Binding) -> Result<(), Error> {
        let reader = self.store().read();
        let place = (bound.medium.clone(), bound.address.clone());
        let waiting = reader.scan::<WaitingInvites>(&place, Direction::Forward, WAITING).await?;
        let tokens: Vec<String> = waiting.iter().map(|((_, _, token), ())| token.clone()).collect();
        let found = reader.get_many::<InviteTokens>(&tokens).await?;
        drop(reader);
        let now = self.time_to_drop();
        let live = tokens.into_iter().zip(found).filter_map(|(token, found)| {
            let own = |Json(invite): &Json<Invite>| invite.expires_at > now && invite.origin.is_none();
            let Json(invite) = found.filter(own)?;
            Some((token, invite.room, invite.sender))
        });
        let live: Vec<Underway> = live.collect();
        let mut tx = Tx::new();
        tx.delete::<Notices>(&key);
        for (row, ()) in &waiting {
            tx.delete::<WaitingInvites>(row);
        }
        self.hand_over(&mut tx, &key.1, bound, live);
        self.tell_all(&mut tx, &key.1, &bound.user, &News::Bound(bound.clone()));
        self.store().commit(tx).await?;
        Ok(())
    }

    /// The time at which what has ended by then is dropped: nothing has while the clock is in doubt.
    fn time_to_drop(&self) -> u64 {
        self.world().settled_now().unwrap_or_default()
    }

    /// Sends invitations on their way to whoever has the address. Each by itself: they are made by the servers of those who
    /// invite, and one that is away must not have those of others made again.
    fn hand_over(&self, tx: &mut Tx, id: &str, binding: &Binding, invites: Vec<Underway>) {
        for (number, invite) in invites.into_iter().enumerate() {
            let news = News::Awaited { binding: binding.clone(), invites: vec![invite] };
            let row = (self.world().now(), format!("{id}.{number}"));
            tx.put::<Notices>(&row, &Json(Notice { to: None, tries: 0, news }));
        }
    }

    /// Whose the address was when these invitations set out has it no more: they go to whoever has it now, or wait again.
    async fn give_back(
        &self,
        key: (u64, String),
        ended: &Binding,
        invites: &[Underway],
    ) -> Result<(), Error> {
        let (medium, address) = (&ended.medium, &ended.address);
        let place = (medium.clone(), address.clone());
        let tokens: Vec<String> = invites.iter().map(|(token, ..)| token.clone()).collect();
        let reader = self.store().read();
        let holder = reader.get::<Associations>(&place).await?;
        let found = reader.get_many::<InviteTokens>(&tokens).await?;
        drop(reader);
        let now = self.time_to_drop();
        let is_live = |found: Option<Json<Invite>>| found.is_some_and(|Json(invite)| invite.expires_at > now);
        let live = invites.iter().zip(found).filter_map(|(invite, found)| is_live(found).then_some(invite));
        let live: Vec<Underway> = live.cloned().collect();
        let mut tx = Tx::new();
        tx.delete::<Notices>(&key);
        tx.expect::<Associations>(&place, holder.as_ref());
        if let Some(Json(Association { user, at })) = holder {
            self.hand_over(&mut tx, &key.1, &Binding { user, at, ..ended.clone() }, live);
        } else {
            for (token, ..) in live {
                tx.put::<WaitingInvites>(&(medium.clone(), address.clone(), token), &());
            }
        }
        match self.store().commit(tx).await {
            // Bound or taken back meanwhile: the notice is still there, and looked at again.
            Ok(_) | Err(chappe_store::Error::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Has all other servers of the network told of a user of this one; of others their own servers speak.
    fn tell_all(&self, tx: &mut Tx, id: &str, user: &UserId, news: &News) {
        if user.server_name() != self.server() {
            return;
        }
        for server in self.others() {
            let row = (self.world().now(), format!("{id}.{server}"));
            let notice = Notice { to: Some(server), tries: 0, news: news.clone() };
            tx.put::<Notices>(&row, &Json(notice));
        }
    }

    /// The body of `3pid/onbind` (server-server API), signed.
    fn onbind(&self, bound: &Binding, invites: &[(String, OwnedRoomId, OwnedUserId)]) -> Value {
        let invites = invites.iter().map(|(token, room, sender)| {
            let text = |value: &str| CanonicalJsonValue::String(value.to_owned());
            let signed = self.signed(CanonicalJsonObject::from([
                ("mxid".to_owned(), text(bound.user.as_str())),
                ("token".to_owned(), text(token)),
            ]));
            json!({
                "medium": bound.medium, "address": bound.address, "mxid": bound.user,
                "room_id": room, "sender": sender, "token": token, "signed": signed,
            })
        });
        let body = json!({
            "medium": bound.medium, "address": bound.address, "mxid": bound.user, "ts": bound.at,
            "not_before": bound.at, "not_after": bound.at.saturating_add(super::associations::LIFETIME),
            "invites": invites.collect::<Vec<_>>(),
        });
        match serde_json::from_value::<CanonicalJsonObject>(body.clone()) {
            Ok(object) => serde_json::to_value(self.signed(object)).unwrap_or(body),
            Err(_) => body,
        }
    }
}
