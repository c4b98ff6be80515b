//! E-mail addresses and phone numbers bound to accounts; each belongs to one account.

use std::collections::BTreeSet;

use chappe_store::{
    Direction, Json, Reader, Tx,
    accounts::{Threepid, ThreepidOwners, Threepids, Users},
    identity_service::{
        Associations, AssociationsOf, Binding, BoundAt, News, Notice, Notices, Place, ServiceTokens,
        ServiceUsers, WantedBindings,
    },
};
use ruma::{OwnedUserId, UserId, thirdparty::Medium};

use crate::{Accounts, Error, retry::retry, users::draft_spent_validation};

/// Addresses one account may have.
const MOST: usize = 50;

/// A bound address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreepidInfo {
    /// E-mail or phone.
    pub medium: Medium,
    /// In canonical form.
    pub address: String,
    /// Proved at, in milliseconds since 1970.
    pub validated: u64,
    /// Bound at, in milliseconds since 1970.
    pub added: u64,
}

impl Accounts {
    /// The addresses of a user.
    pub async fn threepids(&self, user: &UserId) -> Result<Vec<ThreepidInfo>, Error> {
        let rows = self.store().read().scan::<Threepids>(&user.to_owned(), Direction::Forward, MOST).await?;
        let info = |((_, medium, address), Json(row)): ((OwnedUserId, String, String), Json<Threepid>)| {
            ThreepidInfo { medium: medium.into(), address, validated: row.validated, added: row.added }
        };
        Ok(rows.into_iter().map(info).collect())
    }

    /// Whose an address is; it must be in canonical form.
    pub async fn user_by_threepid(
        &self,
        medium: &Medium,
        address: &str,
    ) -> Result<Option<OwnedUserId>, Error> {
        let key = (medium.to_string(), address.to_owned());
        let owner = self.store().read().get::<ThreepidOwners>(&key).await?;
        Ok(owner.and_then(|owner| UserId::parse(owner).ok()))
    }

    /// Binds an address that was proved at `validated` (milliseconds since 1970). The validation that proved it, if there was
    /// one, is used up with it, or stays good: [`Error::Forbidden`] when it was used already, [`Error::ThreepidInUse`] when
    /// the address is another user's, [`Error::Deactivated`].
    pub async fn add_threepid(
        &self,
        user: &UserId,
        medium: &Medium,
        address: &str,
        (validated, validation): (u64, Option<&str>),
    ) -> Result<(), Error> {
        retry!({
            let reader = self.store().read();
            let head = reader.get::<Users>(&user.to_owned()).await?.ok_or(Error::NotFound("user"))?;
            if head.0.deactivated.is_some() {
                return Err(Error::Deactivated);
            }
            let owner_key = (medium.to_string(), address.to_owned());
            let owner = reader.get::<ThreepidOwners>(&owner_key).await?;
            if owner.as_ref().is_some_and(|owner| owner != user.as_str()) {
                return Err(Error::ThreepidInUse);
            }
            let bound = reader.scan::<Threepids>(&user.to_owned(), Direction::Forward, MOST).await?;
            if bound.len() >= MOST {
                return Err(Error::TooMany("addresses"));
            }
            let row = Threepid { validated, added: self.world().now() };
            let mut tx = Tx::new();
            tx.expect::<Users>(&user.to_owned(), Some(&head));
            tx.expect::<ThreepidOwners>(&owner_key, owner.as_ref());
            tx.put::<ThreepidOwners>(&owner_key, &user.to_string());
            tx.put::<Threepids>(&(user.to_owned(), owner_key.0, owner_key.1), &Json(row));
            if let Some(sid) = validation {
                draft_spent_validation(&reader, &mut tx, sid).await?;
            }
            drop(reader);
            self.store().commit(tx).await?;
            Ok(())
        })
    }

    /// Binds exactly these addresses, in canonical form, as proved now, in one step: for administrators. The identity
    /// service of this server forgets those that go; with `published` it is to bind those that come.
    /// [`Error::ThreepidInUse`] when one is another user's.
    pub async fn replace_threepids(
        &self,
        user: &UserId,
        wanted: &[(Medium, String)],
        published: bool,
    ) -> Result<(), Error> {
        let wanted: BTreeSet<(String, String)> =
            wanted.iter().map(|(medium, address)| (medium.to_string(), address.clone())).collect();
        if wanted.len() > MOST {
            return Err(Error::TooMany("addresses"));
        }
        retry!({
            let reader = self.store().read();
            let key = user.to_owned();
            let head = reader.get::<Users>(&key).await?.ok_or(Error::NotFound("user"))?;
            let mut tx = Tx::new();
            tx.expect::<Users>(&key, Some(&head));
            let mut missing = wanted.clone();
            for (row_key, row) in reader.scan::<Threepids>(&key, Direction::Forward, usize::MAX).await? {
                let owner_key = (row_key.1.clone(), row_key.2.clone());
                if !missing.remove(&owner_key) {
                    tx.expect::<Threepids>(&row_key, Some(&row)).delete::<Threepids>(&row_key);
                    tx.delete::<ThreepidOwners>(&owner_key);
                    self.draft_association_end(&reader, &mut tx, (user, &owner_key)).await?;
                }
            }
            let now = self.world().now();
            for owner_key in missing {
                if reader.get::<ThreepidOwners>(&owner_key).await?.is_some() {
                    return Err(Error::ThreepidInUse);
                }
                tx.expect_absent::<ThreepidOwners>(&owner_key);
                tx.put::<ThreepidOwners>(&owner_key, &user.to_string());
                if published && owner_key.0 == Medium::Email.as_str() {
                    tx.put::<WantedBindings>(&(owner_key.0.clone(), owner_key.1.clone(), key.clone()), &());
                }
                let row = Threepid { validated: now, added: now };
                tx.put::<Threepids>(&(key.clone(), owner_key.0, owner_key.1), &Json(row));
            }
            drop(reader);
            self.store().commit(tx).await?;
            Ok(())
        })
    }

    /// Unbinds an address; none is fine. Says whether it was bound.
    pub async fn remove_threepid(
        &self,
        user: &UserId,
        medium: &Medium,
        address: &str,
    ) -> Result<bool, Error> {
        retry!({
            let row_key = (user.to_owned(), medium.to_string(), address.to_owned());
            let Some(row) = self.store().read().get::<Threepids>(&row_key).await? else { return Ok(false) };
            let mut tx = Tx::new();
            tx.expect::<Threepids>(&row_key, Some(&row)).delete::<Threepids>(&row_key);
            tx.delete::<ThreepidOwners>(&(row_key.1, row_key.2));
            self.store().commit(tx).await?;
            Ok(true)
        })
    }

    /// The identity servers at which this server had addresses of a user bound.
    pub async fn bound_at(&self, user: &UserId) -> Result<BTreeSet<String>, Error> {
        let rows = self.store().read().scan_all::<BoundAt>(&user.to_owned()).await?;
        Ok(rows.into_iter().map(|((.., server), _)| server).collect())
    }

    /// Unbinds all addresses of a user, in the identity service of this server too; gives them.
    pub(crate) async fn draft_threepid_ends(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        user: &UserId,
    ) -> Result<Vec<(String, String)>, Error> {
        let rows = reader.scan::<Threepids>(&user.to_owned(), Direction::Forward, usize::MAX).await?;
        let mut addresses = Vec::new();
        for (key, row) in rows {
            tx.expect::<Threepids>(&key, Some(&row)).delete::<Threepids>(&key);
            let address = (key.1, key.2);
            tx.delete::<ThreepidOwners>(&address);
            addresses.push(address);
        }
        for (key, ()) in reader.scan_all::<AssociationsOf>(&user.to_owned()).await? {
            self.draft_association_end(reader, tx, (user, &(key.1, key.2))).await?;
        }
        Ok(addresses)
    }

    /// Has the identity service of this server forget that an address is a user's, if it says so.
    async fn draft_association_end(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        (user, place): (&UserId, &Place),
    ) -> Result<(), Error> {
        let bound = reader.get::<Associations>(place).await?;
        if bound.as_ref().is_some_and(|Json(bound)| bound.user == *user) {
            tx.expect::<Associations>(place, bound.as_ref()).delete::<Associations>(place);
            let (medium, address) = place.clone();
            let ended = Binding { medium, address, user: user.to_owned(), at: self.world().now() };
            self.draft_notice(tx, News::Ended(ended));
        }
        tx.delete::<AssociationsOf>(&(user.to_owned(), place.0.clone(), place.1.clone()));
        Ok(())
    }

    /// Ends the access tokens of a user at the identity service of this server, which is to ask the others to forget the
    /// user's addresses.
    pub(crate) async fn draft_identity_ends(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        user: &UserId,
    ) -> Result<(), Error> {
        let key = user.to_owned();
        if let Some(known) = reader.get::<ServiceUsers>(&key).await? {
            for token in &known.0.tokens {
                tx.delete::<ServiceTokens>(token);
            }
            tx.expect::<ServiceUsers>(&key, Some(&known)).delete::<ServiceUsers>(&key);
        }
        if !reader.scan::<BoundAt>(&key, Direction::Forward, 1).await?.is_empty() {
            self.draft_notice(tx, News::Closed { user: key, at: self.world().now() });
        }
        Ok(())
    }

    fn draft_notice(&self, tx: &mut Tx, news: News) {
        let notice = Notice { to: None, tries: 0, news };
        tx.put::<Notices>(&(self.world().now(), self.world().token(16)), &Json(notice));
    }
}
