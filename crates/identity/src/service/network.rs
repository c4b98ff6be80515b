//! What the identity services of a network tell each other: who was invited, whose an address is, whose it is no more.
//!
//! The network is the homeservers that the map names. Each speaks of its own users alone, and the map says whose users an
//! address can belong to; so each of them answers for all.

use chappe_store::{
    Direction, Json, Tx,
    identity_service::{
        Associations, Binding, IdentityHeads, Invite, InviteExpiries, InviteTokens, News, Notice, Notices,
        WaitingInvites,
    },
};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, ServerName};
use serde::{Deserialize, Serialize};

use super::{
    EMAIL, IdentityService,
    associations::binding,
    invites::{MAX_ROOM, MOST_WAITING},
};
use crate::{Email, Error};

/// The longest time for which an invitation of another server is kept, in milliseconds: a year.
const LONGEST: u64 = 366 * 24 * 3_600_000;

/// The head record that says which servers were told of all addresses.
const GREETED: &str = "network";

/// A message between the identity services of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// A user of the sending server invited an address that the receiving server takes.
    Invited(ForeignInvite),
    /// An address is a user's of the sending server.
    Bound(Binding),
    /// It is no more.
    Ended(Binding),
}

/// An invitation that another server keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignInvite {
    /// `email`.
    pub medium: String,
    /// Whom.
    pub address: String,
    /// Names the invitation.
    pub token: String,
    /// Into which room.
    pub room_id: OwnedRoomId,
    /// Who invites.
    pub sender: OwnedUserId,
    /// When it ends, in milliseconds since 1970.
    pub expires_at: u64,
}

impl IdentityService {
    /// Takes what another server of the network says. [`Error::NotTrusted`] when the map does not name it.
    pub async fn hear(&self, origin: &ServerName, message: Message) -> Result<(), Error> {
        if !self.inner.identity.inner.map.map().names(origin) {
            return Err(Error::NotTrusted);
        }
        match message {
            Message::Invited(invite) => self.hear_invited(origin, invite).await,
            Message::Bound(bound) => {
                let address = spoken_for(origin, &bound)?;
                self.check_binding(&address, &bound.user)?;
                // A clock that is ahead does not win for ever.
                let at = bound.at.min(self.world().now());
                let known = self.association(&address).await?;
                // What is older does not win, and what is known is not written again.
                if known.is_some_and(|known| known.at > at || known.at == at && known.user == bound.user) {
                    return Ok(());
                }
                self.associate(&address, &bound.user, at, None).await.map(drop)
            }
            Message::Ended(ended) => {
                let address = spoken_for(origin, &ended)?;
                let known = self.association(&address).await?;
                if known.is_some_and(|known| known.at <= ended.at) {
                    self.unbind(&address, &ended.user).await?;
                }
                Ok(())
            }
        }
    }

    async fn hear_invited(&self, origin: &ServerName, said: ForeignInvite) -> Result<(), Error> {
        let address = Email::parse(&said.address)?;
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || b".=_-".contains(&byte);
        let right = said.medium == EMAIL
            && said.sender.server_name() == origin
            && said.room_id.as_str().len() <= MAX_ROOM
            && said.sender.as_str().len() <= 255
            && (1..=255).contains(&said.token.len())
            && said.token.bytes().all(sound);
        if !right || self.taken_elsewhere(address.as_str()).is_some() {
            return Err(Error::Invalid("this invitation is not for this server"));
        }
        let now = self.world().now();
        let place = (EMAIL.to_owned(), address.to_string());
        let reader = self.store().read();
        let bound = reader.get::<Associations>(&place).await?;
        let known = reader.get::<InviteTokens>(&said.token).await?;
        let waiting = reader.scan::<WaitingInvites>(&place, Direction::Forward, MOST_WAITING).await?;
        drop(reader);
        let mut tx = Tx::new();
        if let Some(Json(bound)) = bound {
            // The other server does not know yet whose the address is.
            if bound.user.server_name() == self.server() {
                let news = News::Bound(binding(&address, &bound.user, bound.at));
                let notice = Notice { to: Some(origin.to_owned()), tries: 0, news };
                tx.put::<Notices>(&(now, self.world().token(16)), &Json(notice));
            }
        } else if known.is_none() && self.inner.identity.inner.map.map().may_invite(origin) {
            // Others would let nobody in, and only take a place.
            if waiting.len() >= MOST_WAITING {
                return Err(Error::TooManyInvites);
            }
            let invite = Invite {
                medium: place.0.clone(),
                address: place.1.clone(),
                room: said.room_id,
                sender: said.sender,
                stored_at: now,
                expires_at: said.expires_at.min(now + LONGEST),
                key: [0; 32],
                origin: Some(origin.to_owned()),
            };
            tx.expect_absent::<Associations>(&place).expect_absent::<InviteTokens>(&said.token);
            tx.put::<WaitingInvites>(&(place.0, place.1, said.token.clone()), &());
            tx.put::<InviteExpiries>(&(invite.expires_at, said.token.clone()), &());
            tx.put::<InviteTokens>(&said.token, &Json(invite));
        }
        if !tx.is_empty() {
            self.store().commit(tx).await?;
            self.wake();
        }
        Ok(())
    }

    /// The other server of the network that takes an address, if one does.
    pub(super) fn taken_elsewhere(&self, address: &str) -> Option<OwnedServerName> {
        let map = self.inner.identity.inner.map.map();
        let email = Email::parse(address).ok()?;
        let (target, _) = map.target(&email)?;
        let here = target.hs == *self.server() || target.shadow_hs.as_ref() == Some(self.server());
        (!here).then(|| target.hs.clone())
    }

    /// Whether a server is this one or one of the network.
    pub(super) fn knows(&self, server: &ServerName) -> bool {
        server == self.server() || self.inner.identity.inner.map.map().names(server)
    }

    /// The other servers of the network.
    pub(super) fn others(&self) -> Vec<OwnedServerName> {
        let servers = self.inner.identity.inner.map.map().servers();
        servers.into_iter().filter(|server| server != self.server()).collect()
    }

    /// Has servers that are new to the network told whose the addresses of this server's users are.
    pub(super) async fn greet(&self) -> Result<(), Error> {
        let others = self.others();
        if *self.inner.greeted.lock() == others {
            return Ok(());
        }
        let key = GREETED.to_owned();
        let head = self.store().read().get::<IdentityHeads>(&key).await?;
        let damaged = |_| chappe_store::Error::Corrupt("servers of the network");
        let known: Vec<OwnedServerName> =
            head.as_deref().map(serde_json::from_slice).transpose().map_err(damaged)?.unwrap_or_default();
        if known != others {
            let mut tx = Tx::new();
            tx.expect::<IdentityHeads>(&key, head.as_ref());
            tx.put::<IdentityHeads>(&key, &serde_json::to_vec(&others).map_err(damaged)?);
            for server in others.iter().filter(|server| !known.contains(server)) {
                let news = News::Everything { after: String::new() };
                let notice = Notice { to: Some(server.clone()), tries: 0, news };
                tx.put::<Notices>(&(self.world().now(), self.world().token(16)), &Json(notice));
            }
            self.store().commit(tx).await?;
        }
        *self.inner.greeted.lock() = others;
        Ok(())
    }

    /// Whether what is to be told is still so: while it waited, the address may have been taken back, or bound again.
    pub(super) async fn holds(&self, news: &News) -> Result<bool, Error> {
        let (News::Bound(told) | News::Ended(told) | News::Awaited { binding: told, .. }) = news else {
            return Ok(true);
        };
        let place = (told.medium.clone(), told.address.clone());
        let known = self.store().read().get::<Associations>(&place).await?;
        let known = known.map(|Json(known)| known).filter(|known| known.user == told.user);
        Ok(match news {
            News::Ended(_) => known.is_none(),
            _ => known.is_some_and(|known| known.at == told.at),
        })
    }

    /// The message that tells this news; `None` when there is nothing to tell any more.
    pub(super) async fn message_of(&self, news: &News) -> Result<Option<Message>, Error> {
        if !self.holds(news).await? {
            return Ok(None);
        }
        Ok(match news {
            News::Bound(bound) => Some(Message::Bound(bound.clone())),
            News::Ended(ended) => Some(Message::Ended(ended.clone())),
            News::Awaited { .. } | News::Everything { .. } | News::Closed { .. } => None,
            News::Invited(token) => {
                let found = self.store().read().get::<InviteTokens>(token).await?;
                let live =
                    found.map(|Json(invite)| invite).filter(|invite| invite.expires_at > self.world().now());
                live.map(|invite| {
                    Message::Invited(ForeignInvite {
                        medium: invite.medium,
                        address: invite.address,
                        token: token.clone(),
                        room_id: invite.room,
                        sender: invite.sender,
                        expires_at: invite.expires_at,
                    })
                })
            }
        })
    }
}

/// The address, if the server speaks of a user of its own.
fn spoken_for(origin: &ServerName, binding: &Binding) -> Result<Email, Error> {
    if binding.medium != EMAIL || binding.user.server_name() != origin {
        return Err(Error::Invalid("a server speaks of its own users alone"));
    }
    Ok(Email::parse(&binding.address)?)
}
