//! Invitations of addresses: kept until somebody has the address, mailed, signed.

use chappe_rules::build::SigningKey;
use chappe_store::{
    Direction, Json, Tx,
    identity_service::{
        Associations, Invite, InviteExpiries, InviteKeys, InviteTokens, News, Notice, Notices, WaitingInvites,
    },
};
use ruma::{CanonicalJsonObject, CanonicalJsonValue, OwnedRoomId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{EMAIL, IdentityService, TRIES, associations::place, thirty_two, written};
use crate::{
    Email, Error, Identity,
    texts::{Letter, Occasion},
};

/// Invitations that may wait for one address.
pub(super) const MOST_WAITING: usize = 100;
/// Length of a token.
const TOKEN: usize = 128;
/// Longest name that is shown in a mail, in characters.
const MAX_NAME: usize = 80;
/// Characters of each part of an address that a room gets to see.
const SHOWN: usize = 3;
/// Invitations forgotten in one go.
const SWEPT: usize = 500;
const DAY_MS: u64 = 24 * 3_600_000;
/// Longest room id, in bytes.
pub(super) const MAX_ROOM: usize = 255;

/// Somebody invites an address into a room.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// Whom.
    pub address: Email,
    /// Into which room.
    pub room: OwnedRoomId,
    /// Who.
    pub sender: OwnedUserId,
    /// What the mail and other identity servers are told of room and sender: `room_name`, `sender_display_name`…
    pub told: serde_json::Map<String, serde_json::Value>,
    /// In which language, if that is known.
    pub language: Option<crate::Language>,
}

/// A key and where it can be asked whether it is valid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey {
    /// Unpadded base64.
    pub public_key: String,
    /// Where.
    pub key_validity_url: String,
}

/// What a room is told of an invitation (identity service API, `store-invite`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredInvite {
    /// Names the invitation.
    pub token: String,
    /// The service's own key, and the key of this invitation.
    pub public_keys: Vec<PublicKey>,
    /// A hint at the address that does not give it away.
    pub display_name: String,
}

impl Identity {
    /// Whether an invitation waits for an address that lets it in: one by a user of a server that takes people without an
    /// invitation, where there is a map.
    pub async fn is_invited(&self, address: &Email) -> Result<bool, Error> {
        let reader = self.inner.store.read();
        let waiting =
            reader.scan::<WaitingInvites>(&place(address), Direction::Forward, MOST_WAITING).await?;
        let tokens: Vec<String> = waiting.into_iter().map(|((_, _, token), ())| token).collect();
        let now = self.inner.world.now();
        let invites = reader.get_many::<InviteTokens>(&tokens).await?;
        let map = self.inner.map.map();
        let counts = |invite: &Invite| {
            invite.expires_at > now && (map.is_empty() || map.may_invite(invite.sender.server_name()))
        };
        Ok(invites.into_iter().flatten().any(|Json(invite)| counts(&invite)))
    }
}

impl IdentityService {
    /// Keeps an invitation and mails it to the address (`store-invite`). [`Error::Bound`] when the address is somebody's.
    ///
    /// Whoever has an account anywhere has a token of this service: where there is a map, only users of this server and of
    /// those that it names invite ([`Error::MayNotInvite`]).
    pub async fn store_invite(&self, invitation: Invitation) -> Result<StoredInvite, Error> {
        let unmapped = self.inner.identity.inner.map.map().is_empty();
        if !unmapped && !self.knows(invitation.sender.server_name()) {
            return Err(Error::MayNotInvite);
        }
        if invitation.room.as_str().len() > MAX_ROOM {
            return Err(Error::Invalid("room_id is too long"));
        }
        let wait = |retry_after| Error::TooMany { retry_after };
        let config = self.config();
        let (sender, most) = (invitation.sender.clone(), config.service.invites_per_sender);
        self.inner.per_sender.take(sender, most, self.world().now()).map_err(wait)?;
        if !self.inner.identity.sends_mail() {
            return Err(Error::NoMail);
        }
        if let Some(bound) = self.association(&invitation.address).await? {
            return Err(Error::Bound { user: bound.user });
        }
        self.inner.identity.take_address(&invitation.address)?;
        let seed = Zeroizing::new(self.world().bytes::<32>());
        let key = SigningKey::from_seed(*seed, "0").map_err(|_| Error::Invalid("no key could be made"))?;
        let token = self.world().token(TOKEN);
        let now = self.world().now();
        let invite = Invite {
            medium: EMAIL.to_owned(),
            address: invitation.address.to_string(),
            room: invitation.room.clone(),
            sender: invitation.sender.clone(),
            stored_at: now,
            expires_at: now + u64::from(config.service.invite_days) * DAY_MS,
            key: key.public_key(),
            origin: None,
        };
        self.keep(&token, &invite).await?;
        if let Err(error) = self.mail_invite(&invitation, &token, &seed).await {
            self.forget(vec![(token, invite)]).await?;
            return Err(error);
        }
        self.tell_of_invite(&token, &invite).await?;
        tracing::info!(room = %invitation.room, sender = %invitation.sender, "an address was invited");
        self.wake();
        let display_name = hint(&invitation.address);
        Ok(StoredInvite { token, public_keys: self.public_keys(&key), display_name })
    }

    async fn keep(&self, token: &String, invite: &Invite) -> Result<(), Error> {
        let place = (invite.medium.clone(), invite.address.clone());
        for _ in 0..TRIES {
            let reader = self.store().read();
            if let Some(Json(bound)) = reader.get::<Associations>(&place).await? {
                return Err(Error::Bound { user: bound.user });
            }
            let waiting = reader.scan::<WaitingInvites>(&place, Direction::Forward, MOST_WAITING).await?;
            drop(reader);
            if waiting.len() >= MOST_WAITING {
                return Err(Error::TooManyInvites);
            }
            let mut tx = Tx::new();
            // Whoever binds the address later finds this row; whoever has bound it meanwhile stops us here.
            tx.expect_absent::<Associations>(&place);
            tx.put::<WaitingInvites>(&(place.0.clone(), place.1.clone(), token.clone()), &());
            tx.put::<InviteTokens>(token, &Json(invite.clone()));
            tx.put::<InviteKeys>(&invite.key, token);
            tx.put::<InviteExpiries>(&(invite.expires_at, token.clone()), &());
            match self.store().commit(tx).await {
                Err(chappe_store::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
        Err(chappe_store::Error::Conflict.into())
    }

    /// Has the server that takes the address told, now that the mail is out.
    async fn tell_of_invite(&self, token: &str, invite: &Invite) -> Result<(), Error> {
        let Some(elsewhere) = self.taken_elsewhere(&invite.address) else { return Ok(()) };
        let notice = Notice { to: Some(elsewhere), tries: 0, news: News::Invited(token.to_owned()) };
        let mut tx = Tx::new();
        tx.put::<Notices>(&(self.world().now(), self.world().token(16)), &Json(notice));
        self.store().commit(tx).await?;
        Ok(())
    }

    async fn forget(&self, invites: Vec<(String, Invite)>) -> Result<(), Error> {
        let mut tx = Tx::new();
        for (token, invite) in invites {
            tx.delete::<WaitingInvites>(&(invite.medium, invite.address, token.clone()));
            tx.delete::<InviteTokens>(&token).delete::<InviteKeys>(&invite.key);
            tx.delete::<InviteExpiries>(&(invite.expires_at, token));
        }
        self.store().commit(tx).await?;
        Ok(())
    }

    /// Forgets invitations whose time is over; not by a clock that is in doubt.
    pub(super) async fn sweep_invites(&self) -> Result<(), Error> {
        loop {
            let Some(now) = self.world().settled_now() else { return Ok(()) };
            let reader = self.store().read();
            let mut over = reader.scan::<InviteExpiries>(&(), Direction::Forward, SWEPT).await?;
            over.retain(|((at, _), ())| *at <= now);
            if over.is_empty() {
                return Ok(());
            }
            let tokens: Vec<String> = over.into_iter().map(|((_, token), ())| token).collect();
            let found = reader.get_many::<InviteTokens>(&tokens).await?;
            drop(reader);
            let invites = tokens.into_iter().zip(found).filter_map(|(token, found)| Some((token, found?.0)));
            self.forget(invites.collect()).await?;
        }
    }

    async fn mail_invite(&self, invitation: &Invitation, token: &str, seed: &[u8; 32]) -> Result<(), Error> {
        let identity = &self.inner.identity;
        let told =
            |name: &str| invitation.told.get(name).and_then(|value| value.as_str()).unwrap_or_default();
        let inviter = Some(unlinked(told("sender_display_name"))).filter(|name| !name.is_empty());
        let inviter = inviter.unwrap_or_else(|| unlinked(invitation.sender.as_str()));
        let link = self.invite_link(invitation, token, seed);
        let written = identity.inner.templates.get().write(&Letter {
            occasion: Occasion::Invite,
            language: invitation.language.unwrap_or(identity.language()),
            service: &identity.service_name(),
            to: &invitation.address,
            link: &link,
            inviter: &inviter,
            room: &unlinked(told("room_name")),
            ending: None,
        });
        identity.post(&invitation.address, written).await
    }

    /// Where the mail leads. The private half of the invitation's key goes with it and is kept nowhere: whoever has the mail
    /// may have the invitation signed.
    fn invite_link(&self, invitation: &Invitation, token: &str, seed: &[u8; 32]) -> String {
        let site = self.inner.identity.inner.site.public_baseurl.trim_end_matches('/');
        let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let configured = &self.config().service.invite_link;
        if !configured.is_empty() {
            let link = configured.replace("{address}", &encoded(invitation.address.as_str()));
            return link.replace("{token}", token);
        }
        let signurl = format!(
            "{site}/_matrix/identity/v2/sign-ed25519?token={token}&private_key={}",
            encoded(&written(seed))
        );
        format!(
            "{site}/?email={}&room_id={}&signurl={}",
            encoded(invitation.address.as_str()),
            encoded(invitation.room.as_str()),
            encoded(&signurl)
        )
    }

    fn public_keys(&self, key: &SigningKey) -> Vec<PublicKey> {
        let site = self.inner.identity.inner.site.public_baseurl.trim_end_matches('/');
        let valid_at = |path: &str| format!("{site}/_matrix/identity/v2/pubkey/{path}");
        vec![
            PublicKey {
                public_key: written(&self.inner.key.public_key()),
                key_validity_url: valid_at("isvalid"),
            },
            PublicKey {
                public_key: written(&key.public_key()),
                key_validity_url: valid_at("ephemeral/isvalid"),
            },
        ]
    }

    /// Signs an invitation with the key of its mail (`sign-ed25519`). The key must be the invitation's own: this signs nothing
    /// else.
    pub async fn sign_invite(
        &self,
        token: &str,
        private_key: &str,
        user: &UserId,
    ) -> Result<CanonicalJsonObject, Error> {
        let found = self.store().read().get::<InviteTokens>(&token.to_owned()).await?;
        let live = found.map(|Json(invite)| invite).filter(|invite| invite.expires_at > self.world().now());
        let invite = live.ok_or(Error::NotFound("invitation"))?;
        let seed =
            Zeroizing::new(thirty_two(private_key).ok_or(Error::Invalid("This is not a private key"))?);
        let key =
            SigningKey::from_seed(*seed, "0").map_err(|_| Error::Invalid("This is not a private key"))?;
        if key.public_key() != invite.key {
            return Err(Error::Invalid("This is not the key of this invitation"));
        }
        let text = |value: &str| CanonicalJsonValue::String(value.to_owned());
        let mut signed = CanonicalJsonObject::from([
            ("mxid".to_owned(), text(user.as_str())),
            ("sender".to_owned(), text(invite.sender.as_str())),
            ("token".to_owned(), text(token)),
        ]);
        key.sign_json(self.server(), &mut signed);
        Ok(signed)
    }

    /// The service's own key by its id (`pubkey/{keyId}`).
    pub fn public_key(&self, id: &str) -> Option<String> {
        (id == self.inner.key.id()).then(|| written(&self.inner.key.public_key()))
    }

    /// Whether a key is the service's own (`pubkey/isvalid`).
    pub fn is_own_key(&self, public_key: &str) -> bool {
        thirty_two(public_key) == Some(self.inner.key.public_key())
    }

    /// Whether a key is that of an invitation (`pubkey/ephemeral/isvalid`). It stays valid after the address was bound: the
    /// room is still to see it.
    pub async fn is_invite_key(&self, public_key: &str) -> Result<bool, Error> {
        let Some(key) = thirty_two(public_key) else { return Ok(false) };
        let reader = self.store().read();
        let Some(token) = reader.get::<InviteKeys>(&key).await? else { return Ok(false) };
        let invite = reader.get::<InviteTokens>(&token).await?;
        Ok(invite.is_some_and(|Json(invite)| invite.expires_at > self.world().now()))
    }
}

/// A name that a stranger chose, for a mail: one line, short, and nothing that mail programs make a link of.
fn unlinked(name: &str) -> String {
    let plain = name.chars().filter(|c| !c.is_control()).take(MAX_NAME);
    let mut shown = String::new();
    let mut before = ' ';
    for c in plain {
        if before == '.' && c.is_alphanumeric() || before == ':' && c == '/' {
            shown.push(' ');
        }
        shown.push(if c == '@' { '＠' } else { c });
        before = c;
    }
    shown.trim().to_owned()
}

/// `jean.martin@dinum.gouv.fr` → `jea...@din....gou....fr`: enough for those who know the address.
fn hint(address: &Email) -> String {
    let shortened = |part: &str| {
        let shown = SHOWN.min(part.len() / 2).max(1);
        format!("{}...", part.chars().take(shown).collect::<String>())
    };
    let labels: Vec<&str> = address.domain().split('.').collect();
    let (last, rest) = labels.split_last().unwrap_or((&"", &[]));
    let domain: Vec<String> = rest.iter().map(|label| shortened(label)).collect();
    format!("{}@{}.{last}", shortened(address.local()), domain.join("."))
}

#[cfg(test)]
mod tests {
    use super::{hint, unlinked};
    use crate::Email;

    #[test]
    fn a_hint_does_not_give_the_address_away() {
        for (address, expected) in [
            ("jean.martin@dinum.gouv.fr", "jea...@di....go....fr"),
            ("a@x.fr", "a...@x....fr"),
            ("ab@xy.fr", "a...@x....fr"),
        ] {
            assert_eq!(hint(&Email::parse(address).unwrap()), expected);
        }
    }

    #[test]
    fn names_of_strangers_are_no_links() {
        assert_eq!(unlinked("Jean Martin [Dinum]"), "Jean Martin [Dinum]");
        assert_eq!(unlinked("evil.example/x\r\nBcc: a@b.fr"), "evil. example/xBcc: a＠b. fr");
        assert_eq!(unlinked("https://evil.example"), "https: //evil. example");
        assert!(unlinked(&"é".repeat(10_000)).chars().count() <= 80);
    }
}
