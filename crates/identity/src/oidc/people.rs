//! From whom a provider vouches for to an account of this server.

use chappe_accounts::{Accounts, ExternalAccount, NewUser, User, UserKind};
use ruma::{OwnedUserId, UserId, thirdparty::Medium};
use serde_json::Value;

use super::{
    Sso, SsoError,
    claims::text,
    config::{EmailTrust, ProviderConfig},
    jose::Claims,
    provider::{Provider, Vouched},
};
use crate::{Email, Identity, InvalidEmail, Naming};

/// Characters of a display name.
const NAME_LENGTH: usize = 256;
/// User names tried for one person.
const MOST_NAMES: usize = 1000;

/// A person, in the words of a provider.
struct Person {
    account: ExternalAccount,
    address: Address,
    claims: Claims,
}

/// The address that a provider says.
enum Address {
    Believed(Email),
    NotVerified,
    Invalid(InvalidEmail),
    None,
}

impl Person {
    fn email(&self) -> Option<&Email> {
        match &self.address {
            Address::Believed(email) => Some(email),
            _ => None,
        }
    }
}

impl Sso {
    /// The account of whoever logged in, made or linked where the configuration lets it.
    pub(super) async fn account(
        &self,
        provider: &Provider,
        vouched: Vouched,
    ) -> Result<OwnedUserId, SsoError> {
        let config = &provider.config;
        let account = external(config, &vouched.subject);
        let address = address(config, &vouched.claims);
        let person = Person { account, address, claims: vouched.claims };
        // Twice: somebody may log in for the first time in two places at once.
        match self.find_or_make(config, &person).await {
            Err(SsoError::Accounts(
                chappe_accounts::Error::ExternalIdInUse | chappe_accounts::Error::ThreepidInUse,
            )) => self.find_or_make(config, &person).await,
            done => done,
        }
    }

    /// The account that whoever logged in has already; nothing is made or linked.
    pub(super) async fn linked(
        &self,
        provider: &Provider,
        vouched: &Vouched,
    ) -> Result<OwnedUserId, SsoError> {
        let issuer = &provider.config.issuer;
        let found = self.accounts().user_by_external_account(issuer, &vouched.subject).await?;
        found.ok_or(SsoError::NotLinked)
    }

    async fn find_or_make(&self, config: &ProviderConfig, person: &Person) -> Result<OwnedUserId, SsoError> {
        let ExternalAccount { issuer, subject, .. } = &person.account;
        if let Some(user) = self.accounts().user_by_external_account(issuer, subject).await? {
            return self.known(config, person, user).await;
        }
        if let Some(user) = self.owner(config, person).await? {
            return self.link(person, user).await;
        }
        if !config.accounts.create {
            return Err(SsoError::NoAccount);
        }
        self.make(config, person).await
    }

    /// Whoever came back. A closed account may have a successor, or be opened again.
    async fn known(
        &self,
        config: &ProviderConfig,
        person: &Person,
        user: OwnedUserId,
    ) -> Result<OwnedUserId, SsoError> {
        let record = self.accounts().user(&user).await?.ok_or(SsoError::NoAccount)?;
        if record.deactivated.is_none() {
            return standing(&record).map(|()| user);
        }
        let ExternalAccount { issuer, subject, .. } = &person.account;
        if config.link_by_email
            && let Some(successor) = self.owner(config, person).await?
        {
            self.accounts().unlink_external_account(&user, issuer, subject).await?;
            return self.link(person, successor).await;
        }
        if !config.accounts.reactivate {
            return Err(SsoError::Closed);
        }
        standing(&User { deactivated: None, ..record })?;
        self.check_address(config, person).await?;
        let free = match person.email() {
            Some(email) if self.identity().owner(email).await?.is_none() => Some(email.as_str()),
            _ => None,
        };
        self.accounts().reactivate_with(&user, free).await?;
        tracing::info!(%user, provider = config.id, "a closed account was opened again");
        let record = self.accounts().user(&user).await?.ok_or(SsoError::NoAccount)?;
        standing(&record).map(|()| user)
    }

    /// The account that has the person's address, or the same address under another domain. [`SsoError::AddressTaken`] when
    /// there is one that this provider may not open.
    async fn owner(&self, config: &ProviderConfig, person: &Person) -> Result<Option<OwnedUserId>, SsoError> {
        let Some(email) = person.email() else { return Ok(None) };
        if let Some(user) = self.identity().owner(email).await? {
            return if config.link_by_email { Ok(Some(user)) } else { Err(SsoError::AddressTaken) };
        }
        if !config.link_by_email {
            return Ok(None);
        }
        for rule in &config.email_fallbacks {
            let Some(other) = rule.applied(email) else { continue };
            if let Some(user) = self.identity().owner(&other).await? {
                return Ok(Some(user));
            }
        }
        Ok(None)
    }

    async fn link(&self, person: &Person, user: OwnedUserId) -> Result<OwnedUserId, SsoError> {
        let record = self.accounts().user(&user).await?.ok_or(SsoError::NoAccount)?;
        standing(&record)?;
        if record.kind != UserKind::User {
            return Err(SsoError::AddressTaken);
        }
        self.accounts().link_external_account(&user, &person.account).await?;
        tracing::info!(%user, provider = person.account.provider, "an account was linked to an identity provider");
        Ok(user)
    }

    /// Whether somebody with this address may have an account.
    async fn check_address(&self, config: &ProviderConfig, person: &Person) -> Result<(), SsoError> {
        match &person.address {
            Address::Believed(email) => Ok(self.identity().check_allowed(email).await?),
            Address::NotVerified => Err(SsoError::NotVerified),
            Address::Invalid(error) => Err(crate::Error::from(*error).into()),
            Address::None if config.emails != EmailTrust::Ignored => Err(SsoError::NoAddress),
            Address::None => Ok(()),
        }
    }

    async fn make(&self, config: &ProviderConfig, person: &Person) -> Result<OwnedUserId, SsoError> {
        self.check_address(config, person).await?;
        let new = NewUser {
            email: person.email().map(Email::to_string),
            published: person.email().is_some() && self.service().binds_new_accounts(),
            external: Some(person.account.clone()),
            ..NewUser::default()
        };
        // Whose word opens no account opens no closed one either.
        let may_reopen = config.accounts.reactivate && config.link_by_email;
        if let Some(email) = person.email().filter(|_| !may_reopen)
            && self.accounts().former_owner(&Medium::Email, email.as_str()).await?.is_some()
        {
            return Err(SsoError::Closed);
        }
        let naming = naming(self.identity(), config, person)?;
        let user = naming.create(self.accounts(), new).await?;
        tracing::info!(%user, provider = config.id, "an account was made by an identity provider");
        // What waited for the address finds its way now.
        self.service().wake();
        Ok(user)
    }
}

impl Naming {
    /// Makes the account under the first of the names that was never used, not even by an account that is closed now. The
    /// closed account that had the address is opened again instead.
    pub async fn create(
        &self,
        accounts: &Accounts,
        new: NewUser,
    ) -> Result<OwnedUserId, chappe_accounts::Error> {
        if let Some(user) = accounts.reopen(&new).await? {
            tracing::info!(%user, "a closed account was opened again by its address");
            return Ok(user);
        }
        for user in &self.user_ids {
            let named = NewUser {
                localpart: Some(user.localpart().to_owned()),
                displayname: Some(self.display_name.clone()).filter(|name| !name.is_empty()),
                ..new.clone()
            };
            match accounts.create_user(named).await {
                Err(chappe_accounts::Error::UserInUse | chappe_accounts::Error::Reserved) => {}
                other => return other,
            }
        }
        Err(chappe_accounts::Error::UserInUse)
    }
}

fn external(config: &ProviderConfig, subject: &str) -> ExternalAccount {
    ExternalAccount {
        issuer: config.issuer.clone(),
        subject: subject.to_owned(),
        provider: config.id.clone(),
    }
}

/// Who may log in by a provider: nobody whose account is closed, locked or suspended.
pub(super) fn standing(user: &User) -> Result<(), SsoError> {
    if user.deactivated.is_some() {
        Err(SsoError::Closed)
    } else if user.locked {
        Err(SsoError::Locked)
    } else if user.suspended {
        Err(SsoError::Suspended)
    } else {
        Ok(())
    }
}

/// The address that a provider says, as far as it is believed.
fn address(config: &ProviderConfig, claims: &Claims) -> Address {
    let said = text(claims, "email").filter(|said| !said.is_empty());
    let Some(said) = said.filter(|_| config.emails != EmailTrust::Ignored) else { return Address::None };
    if config.emails == EmailTrust::Verified && claims.get("email_verified") != Some(&Value::Bool(true)) {
        return Address::NotVerified;
    }
    Email::parse(said).map_or_else(Address::Invalid, Address::Believed)
}

/// The names of a new account: as for registration with the address, or after the claims that the configuration says.
fn naming(identity: &Identity, config: &ProviderConfig, person: &Person) -> Result<Naming, SsoError> {
    if let Some(email) = person.email().filter(|_| identity.names_accounts()) {
        return Ok(identity.naming(email)?);
    }
    let claimed = text(&person.claims, &config.accounts.localpart_claim).unwrap_or_default();
    let local = person.email().map_or("", Email::local);
    let plain = [claimed, local].into_iter().map(localpart).find(|name| !name.is_empty());
    let server = &identity.site().server_name;
    let plain = plain.ok_or(SsoError::NoName)?;
    let numbered = (1..MOST_NAMES).map(|number| format!("{plain}{number}"));
    let names = std::iter::once(plain.clone()).chain(numbered);
    let user_ids: Vec<OwnedUserId> =
        names.map_while(|name| UserId::parse(format!("@{name}:{server}")).ok()).collect();
    if user_ids.is_empty() {
        return Err(crate::Error::NameTooLong.into());
    }
    Ok(Naming { user_ids, display_name: display_name(config, &person.claims) })
}

/// A claim as a user name: what stands before an `@`, in small letters, without what a user id may not have.
fn localpart(claim: &str) -> String {
    let name = claim.split('@').next().unwrap_or_default().to_lowercase();
    let fits = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._=-/+".contains(*c);
    name.trim_start_matches('_').chars().filter(fits).take(200).collect()
}

fn display_name(config: &ProviderConfig, claims: &Claims) -> String {
    let said = config.accounts.display_name_claims.iter().filter_map(|name| text(claims, name));
    let words: Vec<&str> = said.map(str::trim).filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().filter(|c| !c.is_control()).take(NAME_LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use super::localpart;

    #[test]
    fn a_claim_becomes_a_user_name() {
        for (claim, expected) in [
            ("Jean.Martin", "jean.martin"),
            ("jean@x.fr", "jean"),
            ("__admin", "admin"),
            ("Zoé \u{202e}<b>", "zob"),
            ("@x", ""),
            ("ÉÉ", ""),
        ] {
            assert_eq!(localpart(claim), expected, "{claim}");
        }
    }
}
