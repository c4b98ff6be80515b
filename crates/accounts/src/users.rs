//! Local users: making, finding, changing, closing.

use chappe_store::{
    AccountNews, Json, LogEntry, Reader, Tx,
    accounts::{
        Deactivation, Departures, FormerOwners, LastActive, Passwords, RegistrationTokens, Threepid,
        ThreepidOwners, Threepids, User, UserKind, Users,
    },
    accounts_data::{AccountData, AccountDataChanges, AccountDataCounts, Filters, Profiles},
    accounts_keys::SignatureChanges,
    identity::Validations,
    identity_service::WantedBindings,
    oauth::LogOuts,
};
use ruma::{DeviceId, OwnedUserId, UserId, thirdparty::Medium};

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

/// Whether closing an account forgets its profile and data as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erase {
    /// Keep the profile and what was said.
    No,
    /// The user asked to be forgotten.
    Yes,
}

/// What a new password means for the other devices of the user.
#[derive(Clone, Copy, Debug)]
pub enum OtherDevices<'a> {
    /// They stay logged in.
    Keep,
    /// All are logged out but this one.
    LogOutExcept(Option<&'a DeviceId>),
}

/// Which users an enumeration shows.
#[derive(Clone, Debug, Default)]
pub struct UserFilter {
    /// Only those whose user id contains this.
    pub containing: Option<String>,
    /// Show closed accounts as well.
    pub with_deactivated: bool,
}

impl Accounts {
    /// The user id that a log-in names: a localpart or a whole user id of this server, in whatever case.
    pub fn local_user(&self, name: &str) -> Result<OwnedUserId, Error> {
        let name = name.trim().to_ascii_lowercase();
        let user = UserId::parse_with_server_name(name.as_str(), self.server_name())
            .map_err(|_| Error::InvalidUsername("not a user name"))?;
        if self.is_local(&user) { Ok(user) } else { Err(Error::Forbidden("not a user of this server")) }
    }

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
    async fn new_hash(&self, new: &NewUser) -> Result<Option<String>, Error> {
        match (&new.password, &new.password_hash) {
            (Some(password), _) => {
                self.check_password(password, new.about()).await?;
                Ok(Some(self.hash_password(password).await?))
            }
            (None, Some(hash)) if !is_hash(hash, &self.config().password) => Err(no_hash()),
            (None, hash) => Ok(hash.clone()),
        }
    }

    /// The account that had an address when it was closed, unless it was erased.
    pub async fn former_owner(&self, medium: &Medium, address: &str) -> Result<Option<OwnedUserId>, Error> {
        let key = (medium.to_string(), address.to_owned());
        let owner = self.store().read().get::<FormerOwners>(&key).await?;
        Ok(owner.and_then(|owner| UserId::parse(owner).ok()))
    }

    /// Opens the closed account again that had the new one's address, with the new one's password and addresses, for whoever
    /// proved the address. `None` if there is none; a locked or suspended one stays closed. Its name stays. Nobody else
    /// comes in any more as before: the address may be another person's now.
    pub async fn reopen(&self, new: &NewUser) -> Result<Option<OwnedUserId>, Error> {
        let Some(address) = &new.email else { return Ok(None) };
        let Some(user) = self.former_owner(&Medium::Email, address).await? else { return Ok(None) };
        let hash = self.new_hash(new).await?;
        let done = retry!({
            let reader = self.store().read();
            let found = reader.get::<Users>(&user).await?;
            let Some(Json(found)) = found else { return Ok(None) };
            if found.deactivated.is_none_or(|closed| closed.erase) {
                return Ok(None);
            }
            if found.locked {
                return Err(Error::Locked);
            }
            if found.suspended {
                return Err(Error::Suspended);
            }
            let mut tx = Tx::new();
            self.draft_external_ends(&reader, &mut tx, &user, new.external.as_ref()).await?;
            self.draft_reopening(&reader, &mut tx, &user).await?;
            self.draft_bindings(&reader, &mut tx, &user, new).await?;
            match &hash {
                Some(hash) => self.draft_hash(&reader, &mut tx, (&user, hash)).await?,
                None => _ = tx.delete::<Passwords>(&user),
            }
            drop(reader);
            self.store().commit(tx).await?;
            Ok(Some(user.clone()))
        });
        self.inner.cache.forget(&user);
        done
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

    /// What the log says of an account.
    pub(crate) fn news(&self, user: &UserId, what: AccountNews) -> LogEntry {
        LogEntry::Account { user: user.to_owned(), at: self.world().now(), what }
    }

    /// What binds a new account to the world: its address, its account with an identity provider, the token it used.
    async fn draft_bindings(
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

    /// A local user; `None` also for users of other servers.
    pub async fn user(&self, user: &UserId) -> Result<Option<User>, Error> {
        let found = self.store().read().get::<Users>(&user.to_owned()).await?;
        Ok(found.map(|Json(user)| user))
    }

    /// Those of these local users who are guests: one round trip.
    pub async fn guests_among(
        &self,
        reader: &Reader<'_>,
        users: Vec<OwnedUserId>,
    ) -> Result<Vec<OwnedUserId>, chappe_store::Error> {
        let found = reader.get_many::<Users>(&users).await?;
        let is_guest = |found: &Option<Json<User>>| {
            found.as_ref().is_some_and(|Json(user)| user.kind == UserKind::Guest)
        };
        let guests = users.into_iter().zip(found).filter(|(_, found)| is_guest(found));
        Ok(guests.map(|(user, _)| user).collect())
    }

    /// Up to `limit` users in order of their id, from `after` (excluded).
    pub async fn users(
        &self,
        after: Option<&UserId>,
        limit: usize,
        filter: &UserFilter,
    ) -> Result<Vec<(OwnedUserId, User)>, Error> {
        const PAGE: usize = 500;
        let reader = self.store().read();
        let mut from = after.map(beyond).unwrap_or_default();
        let mut found = Vec::new();
        while found.len() < limit {
            let page = reader.scan_from::<Users>(&(), &from, PAGE).await?;
            let last = page.len() < PAGE;
            if let Some((user, _)) = page.last() {
                from = beyond(user);
            }
            let shown = page.into_iter().map(|(id, Json(user))| (id, user)).filter(|(id, user)| {
                (filter.with_deactivated || user.deactivated.is_none())
                    && filter.containing.as_ref().is_none_or(|part| id.as_str().contains(part))
            });
            found.extend(shown);
            if last {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Closes an account: password, tokens, devices, addresses, what the identity service has of them, pushers go; with
    /// [`Erase::Yes`] profile, account data and the accounts with identity providers as well: those of an account that was
    /// merely closed stay with it, so that whoever comes back by one is told, and gets no second account. That its rooms
    /// are to be left is noted in the same batch (see [`Accounts::departing`]). Closing a
    /// closed account again is fine.
    pub async fn deactivate(&self, user: &UserId, erase: Erase) -> Result<(), Error> {
        let done = retry!({
            let reader = self.store().read();
            let record = reader.get::<Users>(&user.to_owned()).await?.ok_or(Error::NotFound("user"))?;
            let mut tx = Tx::new();
            self.draft_closing(&reader, &mut tx, (user, record.0), erase).await?;
            drop(reader);
            self.store().commit(tx).await?;
            Ok(())
        });
        self.inner.cache.forget(user);
        done
    }

    /// What closing an account writes, if its record is still `old` by then.
    pub(crate) async fn draft_closing(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        (user, old): (&UserId, User),
        erase: Erase,
    ) -> Result<(), Error> {
        let key = user.to_owned();
        let mut record = old.clone();
        let before = old.deactivated.clone();
        if before.is_none() {
            tx.log(self.news(user, AccountNews::Closed));
        }
        let at = before.as_ref().map_or(self.world().now(), |closed| closed.at);
        let erase = erase == Erase::Yes || before.as_ref().is_some_and(|closed| closed.erase);
        let mut addresses = before.map(|closed| closed.addresses).unwrap_or_default();
        addresses.extend(self.draft_threepid_ends(reader, tx, user).await?);
        draft_former_owner(tx, user, &addresses, erase);
        addresses.retain(|_| !erase);
        record.deactivated = Some(Deactivation { at, erase, addresses });
        record.revision += 1;
        record.admin = false;
        record.ends = None;
        tx.expect::<Users>(&key, Some(&Json(old))).put::<Users>(&key, &Json(record));
        tx.delete::<Passwords>(&key).put::<Departures>(&key, &self.world().now());
        tx.delete::<LastActive>(&key);
        // Browsers of those without a password, too: they would be logged in again once the account is opened.
        tx.add::<LogOuts>(&key, 1);
        let devices = self.device_ids(reader, user).await?;
        self.draft_device_ends(reader, tx, user, &devices).await?;
        self.draft_identity_ends(reader, tx, user).await?;
        self.draft_no_end(reader, tx, &key).await?;
        self.draft_pusher_ends(reader, tx, user, |_| true).await?;
        if erase {
            self.draft_external_ends(reader, tx, user, None).await?;
            tx.delete_prefix::<Profiles>(&key);
            tx.delete_prefix::<AccountData>(&key).delete_prefix::<AccountDataChanges>(&key);
            tx.delete::<AccountDataCounts>(&key).delete_prefix::<Filters>(&key);
            tx.delete_prefix::<SignatureChanges>(&key);
        }
        // Whoever finds people has to know, erased or not.
        tx.log(LogEntry::Profile { user: key });
        Ok(())
    }

    /// Opens a closed account again; a password is set separately.
    pub async fn reactivate(&self, user: &UserId) -> Result<(), Error> {
        self.reactivate_with(user, None).await
    }

    /// The same together with an address, in canonical form and proved. [`Error::ThreepidInUse`].
    pub async fn reactivate_with(&self, user: &UserId, email: Option<&str>) -> Result<(), Error> {
        let (key, email) = (user.to_owned(), email.map(str::to_owned));
        let bindings = NewUser { email, ..NewUser::default() };
        let done = retry!({
            let reader = self.store().read();
            let mut tx = Tx::new();
            self.draft_reopening(&reader, &mut tx, &key).await?;
            self.draft_bindings(&reader, &mut tx, &key, &bindings).await?;
            drop(reader);
            self.store().commit(tx).await?;
            Ok(())
        });
        self.inner.cache.forget(user);
        done
    }

    /// Opens an account, closed or not, for another period.
    async fn draft_reopening(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        user: &OwnedUserId,
    ) -> Result<User, Error> {
        let Json(old) = reader.get::<Users>(user).await?.ok_or(Error::NotFound("user"))?;
        let mut record = User { deactivated: None, revision: old.revision + 1, ..old.clone() };
        let addresses = old.deactivated.as_ref().map(|closed| closed.addresses.as_slice());
        draft_former_owner(tx, user, addresses.unwrap_or_default(), true);
        record.ends = self.first_end(record.kind);
        if let Some(ends) = record.ends {
            self.draft_end(reader, tx, user, (ends, None)).await?;
        }
        let was_closed = old.deactivated.is_some();
        tx.expect::<Users>(user, Some(&Json(old))).put::<Users>(user, &Json(record.clone()));
        tx.delete::<Departures>(user).log(LogEntry::Profile { user: user.clone() });
        if was_closed {
            tx.log(self.news(user, AccountNews::Reopened));
        }
        Ok(record)
    }

    /// Closed accounts whose rooms are still to be left, and since when (milliseconds since 1970).
    pub async fn departing(&self) -> Result<Vec<(OwnedUserId, u64)>, chappe_store::Error> {
        self.store().read().scan_all::<Departures>(&()).await
    }

    /// Notes that nothing is left to be done for a closed account.
    pub async fn departed(&self, user: &UserId) -> Result<(), chappe_store::Error> {
        let mut tx = Tx::new();
        tx.delete::<Departures>(&user.to_owned());
        self.store().commit(tx).await.map(drop)
    }

    /// Makes or unmakes an administrator, locks, suspends: `change` edits the record, maybe several times.
    pub async fn update_user(
        &self,
        user: &UserId,
        change: impl Fn(&mut User) + Send + Sync,
    ) -> Result<User, Error> {
        let done = retry!({
            let key = user.to_owned();
            let Json(old) = self.store().read().get::<Users>(&key).await?.ok_or(Error::NotFound("user"))?;
            let mut record = old.clone();
            change(&mut record);
            record.revision = old.revision + 1;
            let mut tx = Tx::new();
            if record.deactivated != old.deactivated {
                tx.log(LogEntry::Profile { user: key.clone() });
            }
            tx.expect::<Users>(&key, Some(&Json(old))).put::<Users>(&key, &Json(record.clone()));
            self.store().commit(tx).await?;
            Ok(record)
        });
        self.inner.cache.forget(user);
        done
    }

    /// What is known of a user whose password is to be guessed.
    async fn about(&self, user: &UserId) -> Result<Vec<String>, Error> {
        let name = self.profile(&self.store().read(), user).await?.displayname().map(str::to_owned);
        let addresses = self.threepids(user).await?.into_iter().map(|bound| bound.address);
        Ok(addresses.chain(name).chain([user.localpart().to_owned()]).collect())
    }

    /// Sets a password, which must follow the policy. [`Error::Deactivated`], [`Error::NotFound`].
    pub async fn set_password(
        &self,
        user: &UserId,
        password: &str,
        others: OtherDevices<'_>,
    ) -> Result<(), Error> {
        self.put_password(user, password, others, None).await
    }

    /// The same for whoever proved to read the account's mail: the validation `sid` is used up with it.
    /// [`Error::Forbidden`] when it was used already.
    pub async fn reset_password(
        &self,
        user: &UserId,
        password: &str,
        others: OtherDevices<'_>,
        sid: &str,
    ) -> Result<(), Error> {
        self.put_password(user, password, others, Some(sid)).await
    }

    async fn put_password(
        &self,
        user: &UserId,
        password: &str,
        others: OtherDevices<'_>,
        validation: Option<&str>,
    ) -> Result<(), Error> {
        self.check_password(password, self.about(user).await?).await?;
        let hash = self.hash_password(password).await?;
        let done = retry!({
            let reader = self.store().read();
            let key = user.to_owned();
            let Json(old) = reader.get::<Users>(&key).await?.ok_or(Error::NotFound("user"))?;
            if old.deactivated.is_some() {
                return Err(Error::Deactivated);
            }
            let mut tx = Tx::new();
            let record = User { revision: old.revision + 1, ..old.clone() };
            tx.expect::<Users>(&key, Some(&Json(old))).put::<Users>(&key, &Json(record));
            self.draft_hash(&reader, &mut tx, (&key, &hash)).await?;
            if let Some(sid) = validation {
                draft_spent_validation(&reader, &mut tx, sid).await?;
            }
            if let OtherDevices::LogOutExcept(kept) = others {
                let mut devices = self.device_ids(&reader, user).await?;
                devices.retain(|device| Some(&**device) != kept);
                self.draft_device_ends(&reader, &mut tx, user, &devices).await?;
            }
            drop(reader);
            self.store().commit(tx).await?;
            Ok(())
        });
        self.inner.cache.forget(user);
        done
    }
}

/// Uses up the proof of an address, which is good for one thing. What refers to it goes when its time is over.
pub(crate) async fn draft_spent_validation(reader: &Reader<'_>, tx: &mut Tx, sid: &str) -> Result<(), Error> {
    let key = sid.to_owned();
    let found = reader.get::<Validations>(&key).await?;
    let found = found.ok_or(Error::Forbidden("this proof of an address is used up"))?;
    tx.expect::<Validations>(&key, Some(&found)).delete::<Validations>(&key);
    Ok(())
}

fn no_hash() -> Error {
    Error::invalid("not a hash of bcrypt or argon2, or a dearer one than may be")
}

/// Remembers whose some addresses were, or forgets it.
fn draft_former_owner(tx: &mut Tx, user: &UserId, addresses: &[(String, String)], forget: bool) {
    for address in addresses {
        if forget {
            tx.delete::<FormerOwners>(address);
        } else {
            tx.put::<FormerOwners>(address, &user.to_string());
        }
    }
}

/// The smallest key beyond a user's.
pub(crate) fn beyond(user: impl AsRef<UserId>) -> String {
    format!("{}\0", user.as_ref())
}

impl std::fmt::Debug for NewUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewUser")
            .field("localpart", &self.localpart)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}
