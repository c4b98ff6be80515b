//! Accounts with identity providers by which local users log in; each belongs to one user.

use chappe_store::{
    Direction, Json, Reader, Tx,
    accounts::{ExternalId, ExternalIds, ExternalIdsOf, Passwords, Users},
};
use ruma::{OwnedUserId, UserId};

use crate::{Accounts, Error, retry::retry};

/// Accounts with identity providers that one user may have.
const MOST: usize = 20;
/// Bytes of an issuer and of a subject (OpenID Connect Core 1.0 §2 gives a subject 255).
const LONGEST: usize = 255;

/// An account with an identity provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAccount {
    /// The provider's issuer URL.
    pub issuer: String,
    /// Who it is there.
    pub subject: String,
    /// What the configuration calls the provider.
    pub provider: String,
}

/// An [`ExternalAccount`] of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalLink {
    /// Which.
    pub account: ExternalAccount,
    /// Since when, in milliseconds since 1970.
    pub linked: u64,
}

impl ExternalAccount {
    fn key(&self) -> (String, String) {
        (self.issuer.clone(), self.subject.clone())
    }
}

impl Accounts {
    /// Whose an account with an identity provider is.
    pub async fn user_by_external_account(
        &self,
        issuer: &str,
        subject: &str,
    ) -> Result<Option<OwnedUserId>, Error> {
        let key = (issuer.to_owned(), subject.to_owned());
        let found = self.store().read().get::<ExternalIds>(&key).await?;
        Ok(found.map(|Json(row)| row.user))
    }

    /// The accounts with identity providers by which a user logs in.
    pub async fn external_links(&self, user: &UserId) -> Result<Vec<ExternalLink>, Error> {
        let reader = self.store().read();
        let mut links = Vec::new();
        for ((_, issuer, subject), ()) in
            reader.scan::<ExternalIdsOf>(&user.to_owned(), Direction::Forward, MOST).await?
        {
            let row = reader.get::<ExternalIds>(&(issuer.clone(), subject.clone())).await?;
            let Some(Json(row)) = row.filter(|Json(row)| row.user == *user) else { continue };
            let account = ExternalAccount { issuer, subject, provider: row.provider };
            links.push(ExternalLink { account, linked: row.linked });
        }
        Ok(links)
    }

    /// Lets a user log in by an account with an identity provider. [`Error::ExternalIdInUse`] when it is somebody else's,
    /// [`Error::Deactivated`], [`Error::NotFound`], [`Error::TooMany`].
    pub async fn link_external_account(&self, user: &UserId, account: &ExternalAccount) -> Result<(), Error> {
        retry!({
            let reader = self.store().read();
            let key = user.to_owned();
            let head = reader.get::<Users>(&key).await?.ok_or(Error::NotFound("user"))?;
            if head.0.deactivated.is_some() {
                return Err(Error::Deactivated);
            }
            if reader.scan::<ExternalIdsOf>(&key, Direction::Forward, MOST).await?.len() >= MOST {
                return Err(Error::TooMany("accounts with identity providers"));
            }
            let mut tx = Tx::new();
            tx.expect::<Users>(&key, Some(&head));
            self.draft_external_link(&reader, &mut tx, &key, account).await?;
            drop(reader);
            self.store().commit(tx).await?;
            Ok(())
        })
    }

    /// Lets a user log in by exactly these accounts, in one step: for administrators. [`Error::ExternalIdInUse`],
    /// [`Error::NotFound`], [`Error::TooMany`].
    pub async fn replace_external_accounts(
        &self,
        user: &UserId,
        wanted: &[ExternalAccount],
    ) -> Result<(), Error> {
        if wanted.len() > MOST {
            return Err(Error::TooMany("accounts with identity providers"));
        }
        retry!({
            let reader = self.store().read();
            let key = user.to_owned();
            let head = reader.get::<Users>(&key).await?.ok_or(Error::NotFound("user"))?;
            let mut tx = Tx::new();
            tx.expect::<Users>(&key, Some(&head));
            for (old, ()) in reader.scan_all::<ExternalIdsOf>(&key).await? {
                let place = (old.1.clone(), old.2.clone());
                if wanted.iter().any(|account| account.key() == place) {
                    continue;
                }
                let row = reader.get::<ExternalIds>(&place).await?;
                tx.expect::<ExternalIds>(&place, row.as_ref()).delete::<ExternalIds>(&place);
                tx.delete::<ExternalIdsOf>(&old);
            }
            for account in wanted {
                self.draft_external_link(&reader, &mut tx, &key, account).await?;
            }
            drop(reader);
            self.store().commit(tx).await?;
            Ok(())
        })
    }

    /// Undoes that; `false` when it was not linked to this user.
    pub async fn unlink_external_account(
        &self,
        user: &UserId,
        issuer: &str,
        subject: &str,
    ) -> Result<bool, Error> {
        retry!({
            let key = (issuer.to_owned(), subject.to_owned());
            let row = self.store().read().get::<ExternalIds>(&key).await?;
            let Some(row) = row.filter(|Json(row)| row.user == *user) else { return Ok(false) };
            let mut tx = Tx::new();
            tx.expect::<ExternalIds>(&key, Some(&row)).delete::<ExternalIds>(&key);
            tx.delete::<ExternalIdsOf>(&(user.to_owned(), key.0, key.1));
            self.store().commit(tx).await?;
            Ok(true)
        })
    }

    /// Whether a user can log in by password.
    pub async fn has_password(&self, user: &UserId) -> Result<bool, Error> {
        Ok(self.store().read().get::<Passwords>(&user.to_owned()).await?.is_some())
    }

    pub(crate) async fn draft_external_link(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        user: &OwnedUserId,
        account: &ExternalAccount,
    ) -> Result<(), Error> {
        let fits = |text: &str| (1..=LONGEST).contains(&text.len()) && !text.chars().any(char::is_control);
        if !fits(&account.issuer) || !fits(&account.subject) {
            return Err(Error::invalid("this cannot be the name of an account with an identity provider"));
        }
        let key = account.key();
        let known = reader.get::<ExternalIds>(&key).await?;
        match &known {
            Some(Json(row)) if row.user == *user => return Ok(()),
            Some(_) => return Err(Error::ExternalIdInUse),
            None => {}
        }
        let linked = self.world().now();
        let row = ExternalId { user: user.clone(), provider: account.provider.clone(), linked };
        tx.expect_absent::<ExternalIds>(&key).put::<ExternalIds>(&key, &Json(row));
        tx.put::<ExternalIdsOf>(&(user.clone(), key.0, key.1), &());
        Ok(())
    }

    /// Forgets by which accounts a user logged in, but for one.
    pub(crate) async fn draft_external_ends(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        user: &UserId,
        spared: Option<&ExternalAccount>,
    ) -> Result<(), Error> {
        let spared = spared.map(ExternalAccount::key);
        for (key, ()) in reader.scan_all::<ExternalIdsOf>(&user.to_owned()).await? {
            let place = (key.1.clone(), key.2.clone());
            if spared.as_ref() == Some(&place) {
                continue;
            }
            let row = reader.get::<ExternalIds>(&place).await?;
            if row.as_ref().is_some_and(|Json(row)| row.user == *user) {
                tx.expect::<ExternalIds>(&place, row.as_ref()).delete::<ExternalIds>(&place);
            }
            tx.delete::<ExternalIdsOf>(&key);
        }
        Ok(())
    }
}
