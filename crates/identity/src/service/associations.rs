//! Associations: binding an address to a user, taking it back, finding it.

use std::collections::BTreeMap;

use chappe_store::{
    Direction, Json, Tx,
    accounts::ThreepidOwners,
    identity_service::{
        AddressHashes, Association, Associations, AssociationsOf, Binding, BoundAt, News, Notice, Notices,
        WantedBindings,
    },
};
use futures_util::future::join_all;
use ruma::{CanonicalJsonObject, CanonicalJsonValue, ClientSecret, Int, OwnedUserId, SessionId, UserId};

use super::{EMAIL, IdentityService, TRIES, peppers::hash};
use crate::{Email, Error, Purpose};

/// How long an association is said to hold, in milliseconds: a hundred years.
pub(super) const LIFETIME: u64 = 100 * 365 * 24 * 3_600_000;
/// Addresses of new accounts that are bound in one go.
const WANTED_AT_ONCE: usize = 100;

/// Places where the addresses of one user may be bound.
const MOST_BOUND: usize = 200;

/// An association with the signature of this service (identity service API, `3pid/bind`).
pub type SignedAssociation = CanonicalJsonObject;

impl IdentityService {
    /// Binds a validated address to a user (`3pid/bind`). The session stays good until it expires: a request that comes
    /// twice gives the same.
    pub async fn bind(
        &self,
        sid: &SessionId,
        client_secret: &ClientSecret,
        user: &UserId,
    ) -> Result<SignedAssociation, Error> {
        let proof = self.inner.identity.validated(Purpose::Bind, sid, client_secret).await?;
        self.check_binding(&proof.address, user)?;
        let at = self.world().now();
        let bound = self.associate(&proof.address, user, at, None).await?;
        Ok(self.sign_association(&proof.address, &bound))
    }

    /// Binds an address because this network says so (`internal/bind`).
    pub async fn bind_unproved(&self, address: &Email, user: &UserId) -> Result<SignedAssociation, Error> {
        self.check_binding(address, user)?;
        let bound = self.associate(address, user, self.world().now(), None).await?;
        Ok(self.sign_association(address, &bound))
    }

    /// Takes an association back; `false` when the address was not bound to this user.
    pub async fn unbind(&self, address: &Email, user: &UserId) -> Result<bool, Error> {
        for _ in 0..TRIES {
            let key = place(address);
            let found = self.store().read().get::<Associations>(&key).await?;
            let Some(found) = found.filter(|Json(association)| association.user == *user) else {
                return Ok(false);
            };
            let (peppers, head) = self.peppers().await?;
            let mut tx = Tx::new();
            tx.expect::<Associations>(&key, Some(&found)).delete::<Associations>(&key);
            tx.delete::<AssociationsOf>(&(user.to_owned(), key.0, key.1));
            super::peppers::expect(&mut tx, &head);
            tx.delete::<AddressHashes>(&(peppers.number, hash(address, &peppers.pepper)));
            if let Some(next) = &peppers.next {
                tx.delete::<AddressHashes>(&(peppers.number + 1, hash(address, next)));
            }
            let news = News::Ended(binding(address, user, self.world().now()));
            let notice = Json(Notice { to: None, tries: 0, news });
            tx.put::<Notices>(&(self.world().now(), self.world().token(16)), &notice);
            match self.store().commit(tx).await {
                Err(chappe_store::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    self.wake();
                    return Ok(true);
                }
            }
        }
        Err(chappe_store::Error::Conflict.into())
    }

    /// Takes an association back for whoever proved the address with a session.
    pub async fn unbind_proved(
        &self,
        sid: &SessionId,
        client_secret: &ClientSecret,
        address: &Email,
        user: &UserId,
    ) -> Result<bool, Error> {
        let proof = self.inner.identity.validated(Purpose::Bind, sid, client_secret).await?;
        if proof.address != *address {
            return Err(Error::Invalid("This session validated another address"));
        }
        self.unbind(address, user).await
    }

    /// Binds an address at whichever identity server a user of this homeserver names, and remembers where.
    pub async fn bind_for(
        &self,
        user: &UserId,
        (id_server, token): (&str, &str),
        sid: &SessionId,
        client_secret: &ClientSecret,
    ) -> Result<(), Error> {
        let known =
            self.store().read().scan::<BoundAt>(&user.to_owned(), Direction::Forward, MOST_BOUND).await?;
        if known.len() >= MOST_BOUND {
            return Err(Error::Invalid("Too many addresses are bound"));
        }
        let server = self.server_for(user, id_server, token).await?;
        let address = server.bind(sid, client_secret, user).await?;
        let mut tx = Tx::new();
        let row = (user.to_owned(), EMAIL.to_owned(), address.to_string(), id_server.to_ascii_lowercase());
        tx.put::<BoundAt>(&row, &self.world().now());
        self.store().commit(tx).await?;
        Ok(())
    }

    /// Has one identity server forget whose an address is, or all that are known to say so, this one among them; `false`
    /// when one of them does not support it.
    pub async fn unbind_for(
        &self,
        user: &UserId,
        address: &Email,
        id_server: Option<&str>,
    ) -> Result<bool, Error> {
        let place = (user.to_owned(), EMAIL.to_owned(), address.to_string());
        let rows = self.store().read().scan::<BoundAt>(&place, Direction::Forward, MOST_BOUND).await?;
        let mut servers: Vec<String> = rows.into_iter().map(|((.., server), _)| server).collect();
        match id_server {
            Some(named) => servers = vec![named.to_ascii_lowercase()],
            None if servers.iter().any(|server| self.is_called(server)) => {}
            None => servers.push(self.server().to_string()),
        }
        let mut everywhere = true;
        for server in servers {
            let asked = match self.server_without_token(&server) {
                Ok(server) => server.unbind(address, user).await,
                Err(error) => Err(error),
            };
            match asked {
                Ok(true) => {}
                Err(error) if id_server.is_some() && !matches!(error, Error::Unreachable) => {
                    return Err(error);
                }
                // Those that refused, were not reached, or are not talked with any more are remembered, for another time.
                Ok(false) | Err(Error::Unreachable | Error::NotTrusted) => {
                    everywhere = false;
                    continue;
                }
                Err(error) => return Err(error),
            }
            let mut tx = Tx::new();
            tx.delete::<BoundAt>(&(user.to_owned(), EMAIL.to_owned(), address.to_string(), server));
            self.store().commit(tx).await?;
        }
        Ok(everywhere)
    }

    /// Has the identity servers where addresses of somebody who is gone were bound forget them; `false` when one was not
    /// reached. Whatever they answer, they are not asked again.
    pub(super) async fn unbind_everywhere(&self, user: &UserId, gone_at: u64) -> Result<bool, Error> {
        let rows =
            self.store().read().scan::<BoundAt>(&user.to_owned(), Direction::Forward, MOST_BOUND).await?;
        let rows = rows.into_iter().filter(|(_, at)| *at <= gone_at).map(|(row, _)| row);
        let asked = join_all(rows.map(async |row| {
            let (_, _, address, server) = &row;
            let answered = match (Email::parse(address), self.server_without_token(server)) {
                (Ok(address), Ok(server)) => server.unbind(&address, user).await,
                _ => Ok(false),
            };
            (row, answered)
        }))
        .await;
        let (mut tx, mut reached) = (Tx::new(), true);
        for (row, answered) in asked {
            match answered {
                Err(Error::Unreachable) => reached = false,
                Err(error @ Error::Store(_)) => return Err(error),
                _ => drop(tx.delete::<BoundAt>(&row)),
            }
        }
        self.store().commit(tx).await?;
        Ok(reached)
    }

    /// Whose an address is.
    pub async fn association(&self, address: &Email) -> Result<Option<Association>, Error> {
        let found = self.store().read().get::<Associations>(&place(address)).await?;
        Ok(found.map(|Json(association)| association))
    }

    /// The same, signed (version 1, `lookup`).
    pub async fn signed_association(&self, address: &Email) -> Result<Option<SignedAssociation>, Error> {
        let found = self.association(address).await?;
        Ok(found.map(|association| self.sign_association(address, &association)))
    }

    /// Whose these addresses are (version 1, `bulk_lookup`).
    pub async fn users_of(&self, addresses: &[Email]) -> Result<Vec<Option<OwnedUserId>>, Error> {
        let keys: Vec<_> = addresses.iter().map(place).collect();
        let found = self.store().read().get_many::<Associations>(&keys).await?;
        Ok(found.into_iter().map(|found| found.map(|Json(association)| association.user)).collect())
    }

    /// Finds users by address or by hash of it (`lookup`). What is malformed is not found.
    pub async fn lookup(
        &self,
        algorithm: &str,
        pepper: &str,
        addresses: &[String],
    ) -> Result<BTreeMap<String, OwnedUserId>, Error> {
        if addresses.len() > self.config().service.lookup_addresses {
            return Err(Error::Invalid("Too many addresses at once"));
        }
        let (peppers, _) = self.peppers().await?;
        if peppers.pepper != pepper {
            return Err(Error::InvalidPepper);
        }
        let asked: Vec<(&String, Email)> = match algorithm {
            "sha256" => self.unhashed(peppers.number, addresses).await?,
            "none" => addresses.iter().filter_map(|text| Some((text, plain(text)?))).collect(),
            _ => return Err(Error::Invalid("The algorithm is sha256 or none")),
        };
        let emails: Vec<Email> = asked.iter().map(|(_, email)| email.clone()).collect();
        let users = self.users_of(&emails).await?;
        let found = asked.into_iter().zip(users);
        Ok(found.filter_map(|((text, _), user)| Some((text.clone(), user?))).collect())
    }

    async fn unhashed<'a>(
        &self,
        number: u32,
        hashes: &'a [String],
    ) -> Result<Vec<(&'a String, Email)>, Error> {
        let asked: Vec<(&String, [u8; 32])> =
            hashes.iter().filter_map(|text| Some((text, super::thirty_two(text)?))).collect();
        let keys: Vec<_> = asked.iter().map(|(_, hash)| (number, *hash)).collect();
        let found = self.store().read().get_many::<AddressHashes>(&keys).await?;
        let known = asked.into_iter().zip(found);
        Ok(known.filter_map(|((text, _), address)| Some((text, plain(&address?)?))).collect())
    }

    /// The user's homeserver must be the one that serves the address, where this network has a map.
    pub(super) fn check_binding(&self, address: &Email, user: &UserId) -> Result<(), Error> {
        let map = self.inner.identity.inner.map.map();
        if map.is_empty() {
            return Ok(());
        }
        let server = user.server_name();
        let serves = map.target(address).is_some_and(|(target, _)| {
            target.hs == *server || target.shadow_hs.as_ref().is_some_and(|shadow| *shadow == *server)
        });
        if serves { Ok(()) } else { Err(Error::BindingNotPermitted) }
    }

    /// One batch: the association, its hashes, and the note that somebody may have to be told.
    pub(super) async fn associate(
        &self,
        address: &Email,
        user: &UserId,
        at: u64,
        wanted: Option<&(String, String, OwnedUserId)>,
    ) -> Result<Association, Error> {
        let key = place(address);
        for _ in 0..TRIES {
            let (peppers, head) = self.peppers().await?;
            let old = self.store().read().get::<Associations>(&key).await?;
            let mut tx = Tx::new();
            if let Some(wanted) = wanted {
                tx.expect::<WantedBindings>(wanted, Some(&())).delete::<WantedBindings>(wanted);
                // Whoever closes the account meanwhile stops us here.
                tx.expect::<ThreepidOwners>(&key, Some(&user.to_string()));
            }
            if let Some(Json(old)) = &old {
                tx.delete::<AssociationsOf>(&(old.user.clone(), key.0.clone(), key.1.clone()));
            }
            let bound = Association { user: user.to_owned(), at };
            tx.expect::<Associations>(&key, old.as_ref()).put::<Associations>(&key, &Json(bound.clone()));
            tx.put::<AssociationsOf>(&(user.to_owned(), key.0.clone(), key.1.clone()), &());
            super::peppers::expect(&mut tx, &head);
            let spelled = format!("{EMAIL} {address}");
            tx.put::<AddressHashes>(&(peppers.number, hash(address, &peppers.pepper)), &spelled);
            if let Some(next) = &peppers.next {
                tx.put::<AddressHashes>(&(peppers.number + 1, hash(address, next)), &spelled);
            }
            let notice = Notice { to: None, tries: 0, news: News::Bound(binding(address, user, at)) };
            tx.put::<Notices>(&(self.world().now(), self.world().token(16)), &Json(notice));
            match self.store().commit(tx).await {
                Err(chappe_store::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    self.wake();
                    return Ok(bound);
                }
            }
        }
        Err(chappe_store::Error::Conflict.into())
    }

    /// Binds the addresses of new accounts; gives whether there may be more.
    pub(super) async fn bind_wanted(&self) -> Result<bool, Error> {
        let reader = self.store().read();
        let wanted = reader.scan::<WantedBindings>(&(), Direction::Forward, WANTED_AT_ONCE).await?;
        let owners: Vec<_> = wanted.iter().map(|((m, a, _), ())| (m.clone(), a.clone())).collect();
        let owners = reader.get_many::<ThreepidOwners>(&owners).await?;
        drop(reader);
        let more = wanted.len() == WANTED_AT_ONCE;
        for ((key, ()), owner) in wanted.into_iter().zip(owners) {
            let still = owner.is_some_and(|owner| owner == key.2.as_str());
            let email =
                Email::parse(&key.1).ok().filter(|email| still && self.check_binding(email, &key.2).is_ok());
            let done = match email {
                Some(email) => self.associate(&email, &key.2, self.world().now(), Some(&key)).await.map(drop),
                None => {
                    let mut tx = Tx::new();
                    tx.delete::<WantedBindings>(&key);
                    self.store().commit(tx).await.map(drop).map_err(Error::from)
                }
            };
            match done {
                // Somebody else did it.
                Ok(()) | Err(Error::Store(chappe_store::Error::Conflict)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(more)
    }

    fn sign_association(&self, address: &Email, bound: &Association) -> SignedAssociation {
        let number = |value: u64| {
            CanonicalJsonValue::Integer(Int::new_saturating(i64::try_from(value).unwrap_or(i64::MAX)))
        };
        let text = |value: &str| CanonicalJsonValue::String(value.to_owned());
        self.signed(CanonicalJsonObject::from([
            ("address".to_owned(), text(address.as_str())),
            ("medium".to_owned(), text(EMAIL)),
            ("mxid".to_owned(), text(bound.user.as_str())),
            ("not_before".to_owned(), number(bound.at)),
            ("not_after".to_owned(), number(bound.at + LIFETIME)),
            ("ts".to_owned(), number(bound.at)),
        ]))
    }
}

/// An address and whose it is, as news tell it.
pub(super) fn binding(address: &Email, user: &UserId, at: u64) -> Binding {
    Binding { medium: EMAIL.to_owned(), address: address.to_string(), user: user.to_owned(), at }
}

/// The key of an address in the tables.
pub(super) fn place(address: &Email) -> (String, String) {
    (EMAIL.to_owned(), address.to_string())
}

/// `address medium` or `medium address`, the address in canonical form.
fn plain(text: &str) -> Option<Email> {
    let (first, second) = text.split_once(' ')?;
    let address = if second == EMAIL { first } else { (first == EMAIL).then_some(second)? };
    Email::parse(address).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use chappe_accounts::{Accounts, AccountsConfig};
    use chappe_kv::{Db, Memory};
    use chappe_rules::build::SigningKey;
    use chappe_store::{Store, Tx, accounts::ThreepidOwners, identity_service::WantedBindings};
    use chappe_world::{Fake, FakeNet, World};
    use ruma::{OwnedUserId, ServerName, UserId, user_id};
    use serde_json::Value;

    use super::{EMAIL, IdentityService};
    use crate::{
        Config, Elsewhere, Email, Error, HomeserverError, Homeservers, Identity, IdentityServer, ServiceDeps,
        Site,
    };

    /// Nobody is there.
    struct Alone;

    #[async_trait]
    impl Homeservers for Alone {
        async fn openid_user(&self, _: &ServerName, _: &str) -> Result<OwnedUserId, HomeserverError> {
            Err(HomeserverError::Unreachable)
        }

        async fn onbind(&self, _: &UserId, _: Value) -> Result<(), HomeserverError> {
            Err(HomeserverError::Unreachable)
        }

        async fn tell(&self, _: &ServerName, _: Value) -> Result<(), HomeserverError> {
            Err(HomeserverError::Unreachable)
        }

        fn identity_server(&self, _: Elsewhere) -> Arc<dyn IdentityServer> {
            panic!("nobody is asked here")
        }
    }

    #[tokio::test]
    async fn the_address_of_an_account_that_is_closed_meanwhile_is_not_bound() {
        let store = Store::new(Db::new(Memory::default()));
        let world = World::fake(Fake::new("a.example", 1, &FakeNet::default()));
        let site = Site {
            server_name: "a.example".try_into().unwrap(),
            public_baseurl: "https://a.example".to_owned(),
        };
        let accounts =
            Accounts::new(store.clone(), world.clone(), site.server_name.clone(), AccountsConfig::default());
        let identity = Identity::new(store.clone(), world, None, Config::default(), site).await.unwrap();
        let key = Arc::new(SigningKey::from_seed([3; 32], "k").unwrap());
        let homeservers = Arc::new(Alone);
        let service = IdentityService::new(ServiceDeps { identity, accounts, key, homeservers });
        let (carol, address) = (user_id!("@carol:a.example"), Email::parse("carol@a.fr").unwrap());
        let wanted = (EMAIL.to_owned(), address.to_string(), carol.to_owned());
        let owner = (wanted.0.clone(), wanted.1.clone());
        let mut tx = Tx::new();
        tx.put::<WantedBindings>(&wanted, &());
        store.commit(tx).await.unwrap();
        // The worker saw an owner, who is gone by now.
        let bound = service.associate(&address, carol, 1, Some(&wanted)).await;
        assert!(matches!(bound, Err(Error::Store(chappe_store::Error::Conflict))), "{bound:?}");
        assert_eq!(service.association(&address).await.unwrap(), None);
        let mut tx = Tx::new();
        tx.put::<ThreepidOwners>(&owner, &carol.to_string());
        store.commit(tx).await.unwrap();
        service.associate(&address, carol, 1, Some(&wanted)).await.unwrap();
    }
}
