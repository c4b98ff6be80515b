//! Making users, and what binds them to the world.

use chappe_store::{
    AccountNews, Json, LogEntry, Reader, Tx,
    accounts::{
        FormerOwners, RegistrationTokens, Threepid, ThreepidOwners, Threepids, User, UserKind, Users,
    },
    accounts_data::Profiles,
    identity_service::WantedBindings,
};
use ruma::{OwnedUserId, UserId};

use super::draft_spent_validation;
use crate::{Accounts, Error, ExternalAccount, hashes::is_hash, retry::retry};

/// A user to be made.
#[derive(Clone, Default)]
pub struct NewUser {
    /// The part before the colon, taken in small letters; `None` draws a random one.
    pub localpart: Option<String>,
    /// What for.
    pub kind: UserKind,
    /// Whether it becomes a server administrator.
    pub admin: bool,
    /// Its password, checked against the policy; `None`: no log-in by password.
    pub password: Option<String>,
    /// The hash of its password, from another server: argon2, or bcrypt with the pepper of the configuration.
    pub password_hash: Option<String>,
    /// First display name.
    pub displayname: Option<String>,
    /// E-mail address (already parsed and proved) to bind.
    pub email: Option<String>,
    /// The validation that proved the address here, to be used up.
    pub validation: Option<String>,
    /// Whether the identity service is to bind the address as well, so that others find the account by it.
    pub published: bool,
    /// Registration token to use up, as `Verified::registration_token` gave it.
    pub registration_token: Option<String>,
    /// Application service it belongs to.
    pub appservice: Option<String>,
    /// Account with an identity provider by which it logs in.
    pub external: Option<ExternalAccount>,
}

impl NewUser {
    /// What is known of a user whose password is to be guessed.
    fn about(&self) -> Vec<String> {
        let known = [&self.email, &self.displayname, &self.localpart];
        known.into_iter().flatten().cloned().collect()
    }
}

impl Accounts {
    /// Makes a user. [`Error::UserInUse`], [`Error::InvalidUsername`], [`Error::Reserved`], [`Error::WeakPassword`],
    /// [`Error::ThreepidInUse`], [`Error::ExternalIdInUse`]; [`Error::Forbidden`] when the registration token is used up.
    pub async fn create_user(&self, new: NewUser) -> Result<OwnedUserId, Error> {
        let localpart = match &new.localpart {
            Some(localpart) => localpart.clone(),
            None => self.world().token(16).to_ascii_lowercase(),
        };
        let user = self.check_available(&localpart, new.kind).await?;
        let hash = self.new_hash(&new).await?;
        retry!({
            let reader = self.store().read();
            let mut tx = Tx::new();
            self.draft_user(&reader, &mut tx, &user, &new).await?;
            if let Some(hash) = &hash {
                self.draft_hash(&reader, &mut tx, (&user, hash)).await?;
            }
            drop(reader);
            self.store().commit(tx).await?;
            Ok(user.clone())
        })
    }

    /// The checks of [`Accounts::create_user`] without making anything.
    pub async fn check_new_user(&self, new: &NewUser) -> Result<(), Error> {
        self.check_available(new.localpart.as_deref().unwrap_or_default(), new.kind).await?;
        if let Some(password) = &new.password {
            self.check_password(password, new.about()).await?;
        }
        if new.password_hash.as_ref().is_some_and(|hash| !is_hash(hash, &self.config().password)) {
            return Err(no_hash());
        }
        let Some(address) = &new.email else { return Ok(()) };
        let owner = ("email".to_owned(), address.clone());
        match self.store().read().get::<ThreepidOwners>(&owner).await? {
            Some(_) => Err(Error::ThreepidInUse),
            None => Ok(()),
        }
    }

    /// What is kept of a new account's password.
    pub(super) async fn new_hash(&self, new: &NewUser) -> Result<Option<String>, Error> {
        match (&new.password, &new.password_hash) {
            (Some(password), _) => {
                self.check_password(password, new.about()).await?;
                Ok(Some(self.hash_password(password).await?))
            }
            (None, Some(hash)) if !is_hash(hash, &self.config().password) => Err(no_hash()),
            (None, hash) => Ok(hash.clone()),
        }
    }

    async fn draft_user(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        user: &OwnedUserId,
        new: &NewUser,
    ) -> Result<(), Error> {
        if reader.get::<Users>(user).await?.is_some() {
            return Err(Error::UserInUse);
        }
        let record = User {
            kind: new.kind,
            created: self.world().now(),
            admin: new.admin,
            appservice: new.appservice.clone(),
            ends: self.first_end(new.kind),
            ..User::default()
        };
        if let Some(ends) = record.ends {
            self.draft_end(reader, tx, user, (ends, None)).await?;
        }
        tx.expect_absent::<Users>(user).put::<Users>(user, &Json(record));
        if let Some(name) = &new.displayname {
            let value = serde_json::Value::from(name.as_str()).to_string();
            tx.put::<Profiles>(&(user.clone(), "displayname".to_owned()), &value.into_bytes());
        }
        tx.log(LogEntry::Profile { user: user.clone() }).log(self.news(user, AccountNews::Made));
        self.draft_bindings(reader, tx, user, new).await
    }

    /// What binds a new account to the world: its address, its account with an identity provider, the token it used.
    pub(super) async fn draft_bindings(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        user: &OwnedUserId,
        new: &NewUser,
    ) -> Result<(), Error> {
        if let Some(address) = &new.email {
            let owner = ("email".to_owned(), address.clone());
            tx.delete::<FormerOwners>(&owner);
            if reader.get::<ThreepidOwners>(&owner).await?.is_some() {
                return Err(Error::ThreepidInUse);
            }
            let now = self.world().now();
            tx.expect_absent::<ThreepidOwners>(&owner).put::<ThreepidOwners>(&owner, &user.to_string());
            if new.published {
                let wanted = (owner.0.clone(), owner.1.clone(), user.clone());
                tx.put::<WantedBindings>(&wanted, &());
            }
            let row = (user.clone(), owner.0, owner.1);
            tx.put::<Threepids>(&row, &Json(Threepid { validated: now, added: now }));
        }
        if let Some(sid) = &new.validation {
            draft_spent_validation(reader, tx, sid).await?;
        }
        if let Some(account) = &new.external {
            self.draft_external_link(reader, tx, user, account).await?;
        }
        if let Some(token) = &new.registration_token {
            self.draft_token_use(reader, tx, token).await?;
        }
        Ok(())
    }

    async fn draft_token_use(&self, reader: &Reader<'_>, tx: &mut Tx, token: &String) -> Result<(), Error> {
        const USED_UP: Error = Error::Forbidden("this registration token cannot be used any more");
        let Json(old) = reader.get::<RegistrationTokens>(token).await?.ok_or(USED_UP)?;
        let mut row = old.clone();
        row.completed += 1;
        let over = row.uses_allowed.is_some_and(|allowed| row.completed > allowed);
        if over || row.expires.is_some_and(|at| at <= self.world().now()) {
            return Err(USED_UP);
        }
        tx.expect::<RegistrationTokens>(token, Some(&Json(old)));
        tx.put::<RegistrationTokens>(token, &Json(row));
        Ok(())
    }

    /// Whether a localpart could be registered: the checks of [`Accounts::create_user`] without making anything.
    pub async fn check_available(&self, localpart: &str, kind: UserKind) -> Result<OwnedUserId, Error> {
        let localpart = localpart.to_ascii_lowercase();
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._=-/+".contains(c);
        if localpart.is_empty() || !localpart.chars().all(fits) {
            return Err(Error::InvalidUsername("user names have a-z, 0-9 and . _ = - / + only"));
        }
        let user = UserId::parse(format!("@{localpart}:{}", self.server_name()))
            .map_err(|_| Error::InvalidUsername("this user name is too long"))?;
        user.validate_strict().map_err(|_| Error::InvalidUsername("this user name cannot be used"))?;
        let person = matches!(kind, UserKind::User | UserKind::Guest);
        let reserved = || {
            localpart.starts_with('_')
                || self.config().reserved_names.contains(&localpart)
                || self.appservices().reserve_user(&user, None)
        };
        if person && reserved() {
            return Err(Error::Reserved);
        }
        match self.user(&user).await? {
            Some(_) => Err(Error::UserInUse),
            None => Ok(user),
        }
    }
}

fn no_hash() -> Error {
    Error::invalid("not a hash of bcrypt or argon2, or a dearer one than may be")
}

impl std::fmt::Debug for NewUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewUser")
            .field("localpart", &self.localpart)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}
