//! Passwords: argon2id, off the async threads, a bounded number at a time. Hashes of another server or another cost are
//! verified, and replaced when their users log in.

use std::{collections::BTreeSet, sync::Arc};

use argon2::{Algorithm, Argon2, PasswordHasher, Version, password_hash::SaltString};
use chappe_store::{
    Json, Reader, Tx,
    accounts::{PasswordCosts, Passwords},
};
use ruma::{OwnedUserId, UserId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

use crate::{
    Accounts, Error, PasswordPolicy, Weakness,
    hashes::{BCRYPT_READS, Trial, cost_by, cost_of, is_bcrypt, normalised},
    strength::strength,
    users::beyond,
};

/// The costs of hashes, see [`cost_of`].
type Costs = Json<BTreeSet<String>>;

/// The longest password that is looked at, in characters, as Synapse counts.
pub(crate) const LONGEST: usize = 512;
/// Characters of a drawn password: about 119 bits.
const DRAWN: usize = 20;
/// Costs that may be in use when hashes of another are brought here: a log-in pays them all.
const COSTS: usize = 6;
/// Estimates of the strength of passwords worked out at once, and how many may wait for their turn.
const ESTIMATES: usize = 2;
const ESTIMATES_WAITING: usize = 50;
/// Hashes read at once.
const PAGE: usize = 1_000;

const REFUSED: Error = Error::Forbidden("Invalid username or password");

/// What a policy finds wrong with a password, if anything.
fn weakness(policy: &PasswordPolicy, password: &str) -> Option<Weakness> {
    let has = |test: fn(char) -> bool| password.chars().any(test);
    if password.chars().count() < policy.minimum_length.max(1) {
        Some(Weakness::TooShort)
    } else if policy.require_digit && !has(|c| c.is_ascii_digit()) {
        Some(Weakness::NoDigit)
    } else if policy.require_symbol && !has(|c| !c.is_ascii_alphanumeric()) {
        Some(Weakness::NoSymbol)
    } else if policy.require_uppercase && !has(|c| c.is_ascii_uppercase()) {
        Some(Weakness::NoUppercase)
    } else if policy.require_lowercase && !has(|c| c.is_ascii_lowercase()) {
        Some(Weakness::NoLowercase)
    } else {
        None
    }
}

/// Places for work off the async threads, and places in the queue before them.
pub(crate) struct Turns {
    pub(crate) places: Arc<Semaphore>,
    pub(crate) queue: Arc<Semaphore>,
}

/// One of the places. It belongs to the work, which goes on when whoever asked hangs up.
type Turn = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Turns {
    pub(crate) fn new(at_once: usize, waiting: usize) -> Self {
        let at_once = at_once.max(1);
        Self { places: Arc::new(Semaphore::new(at_once)), queue: Arc::new(Semaphore::new(at_once + waiting)) }
    }

    /// Those for estimates, apart from the others: nobody waits for a log-in because others choose passwords.
    pub(crate) fn for_estimates() -> Self {
        Self::new(ESTIMATES, ESTIMATES_WAITING)
    }

    /// Waits for a place; [`Error::Busy`] when too many do.
    async fn take(&self) -> Result<Turn, Error> {
        let waiting = Arc::clone(&self.queue).try_acquire_owned().map_err(|_| Error::Busy)?;
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| Error::Busy)?;
        Ok((waiting, place))
    }
}

fn is_too_long(password: &str) -> bool {
    password.chars().count() > LONGEST
}

impl Accounts {
    /// Checks how a new password looks, which costs nothing: [`Error::WeakPassword`], [`Error::TooLarge`] beyond 512
    /// characters.
    pub fn check_look(&self, password: &str) -> Result<(), Error> {
        if is_too_long(password) {
            return Err(Error::TooLarge("password"));
        }
        weakness(&self.config().password.policy, password)
            .map_or(Ok(()), |found| Err(Error::WeakPassword(found)))
    }

    /// The same, and how hard the password is to guess, for a user of whom `about` is known. For those whose requests are
    /// counted, or who are known: it is some work. [`Error::Busy`].
    pub async fn check_password(&self, password: &str, about: Vec<String>) -> Result<(), Error> {
        self.check_look(password)?;
        let policy = &self.config().password.policy;
        if policy.minimum_strength == 0 {
            return Ok(());
        }
        let turn = self.inner.estimates.take().await?;
        let password = Zeroizing::new(password.to_owned());
        let estimate = move || {
            let _turn = turn;
            strength(&password, &about)
        };
        let found = self.world().spawn_blocking(estimate).await.map_err(|_| Error::Busy)?;
        if found < policy.minimum_strength { Err(Error::WeakPassword(Weakness::Guessable)) } else { Ok(()) }
    }

    /// A random password that follows the policy.
    pub fn draw_password(&self) -> String {
        let policy = &self.config().password.policy;
        let wanted = [
            (policy.require_digit, '7'),
            (policy.require_symbol, '-'),
            (policy.require_uppercase, 'A'),
            (policy.require_lowercase, 'a'),
        ];
        let wanted: String = wanted.into_iter().filter_map(|(is_wanted, c)| is_wanted.then_some(c)).collect();
        let random = policy.minimum_length.saturating_sub(wanted.len()).max(DRAWN);
        self.world().token(random) + &wanted
    }

    /// Checks a password for log-in. Unknown users, closed accounts and wrong passwords look the same and take the
    /// same time: [`Error::Forbidden`].
    pub async fn verify_password(&self, user: &UserId, password: &str) -> Result<(), Error> {
        if is_too_long(password) {
            return Err(REFUSED);
        }
        let turn = self.inner.hashing.take().await?;
        let is_open = self.user(user).await?.is_some_and(|found| found.deactivated.is_none());
        let key = user.to_owned();
        let reader = self.store().read();
        let (hashes, costs) = reader.get_both::<Passwords, PasswordCosts>(&[key], &[()]).await?;
        drop(reader);
        let stored = hashes.into_iter().flatten().next().filter(|_| is_open);
        let known = costs.into_iter().flatten().next();
        let mut costs = known.clone().unwrap_or_default().0;
        costs.insert(self.todays_cost());
        let is_new = stored.as_deref().and_then(cost_of).is_some_and(|cost| costs.insert(cost));
        let trial = Trial {
            given: Zeroizing::new(password.to_owned()),
            stored: stored.clone(),
            pepper: self.config().password.bcrypt_pepper.clone(),
            costs: costs.clone(),
        };
        let check = move || {
            let _turn = turn;
            trial.is_passed()
        };
        let passed = self.world().spawn_blocking(check).await.map_err(|_| Error::Busy)?;
        if is_new {
            self.put_costs(known, costs).await?;
        }
        let Some(stored) = stored.filter(|_| passed) else { return Err(REFUSED) };
        // Behind what bcrypt reads, anything may have been typed: a hash of all of it could shut the user out.
        let is_whole = !is_bcrypt(&stored) || normalised(password).len() < BCRYPT_READS;
        if is_whole
            && cost_of(&stored) != Some(self.todays_cost())
            && let Err(error) = self.renew_hash(user, password, &stored).await
        {
            tracing::warn!(%user, %error, "a password hash keeps its old cost until the next log-in");
        }
        Ok(())
    }

    /// The cost of the hashes that are made now.
    fn todays_cost(&self) -> String {
        cost_by(&self.config().password)
    }

    /// Writes which costs are in use. Whoever was faster has read as much.
    async fn put_costs(&self, known: Option<Costs>, costs: BTreeSet<String>) -> Result<(), Error> {
        let mut tx = Tx::new();
        tx.expect::<PasswordCosts>(&(), known.as_ref()).put::<PasswordCosts>(&(), &Json(costs));
        match self.store().commit(tx).await {
            Ok(_) | Err(chappe_store::Error::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts a user's hash, and notes what it costs if that is new.
    pub(crate) async fn draft_hash(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        (user, hash): (&OwnedUserId, &String),
    ) -> Result<(), Error> {
        tx.put::<Passwords>(user, hash);
        let Some(cost) = cost_of(hash).filter(|cost| *cost != self.todays_cost()) else { return Ok(()) };
        let known = reader.get::<PasswordCosts>(&()).await?;
        let mut costs = known.clone().unwrap_or_default().0;
        if costs.insert(cost) {
            if costs.len() > COSTS {
                return Err(Error::TooMany("costs of password hashes"));
            }
            tx.expect::<PasswordCosts>(&(), known.as_ref()).put::<PasswordCosts>(&(), &Json(costs));
        }
        Ok(())
    }

    /// Looks what the hashes cost that are left, unless all are known to be of today's cost: log-ins pay for the others too.
    /// Meant to be called at the start.
    pub async fn settle_password_costs(&self) -> Result<(), Error> {
        let reader = self.store().read();
        let known = reader.get::<PasswordCosts>(&()).await?;
        let mut costs = BTreeSet::from([self.todays_cost()]);
        if known.as_ref().is_some_and(|Json(known)| *known == costs) {
            return Ok(());
        }
        let mut from = String::new();
        loop {
            let page = reader.scan_from::<Passwords>(&(), &from, PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            from = beyond(last);
            costs.extend(page.iter().filter_map(|(_, hash)| cost_of(hash)));
        }
        drop(reader);
        self.put_costs(known, costs).await
    }

    /// Replaces the hash of a password that was just shown to be right, unless somebody else replaced it meanwhile.
    async fn renew_hash(&self, user: &UserId, password: &str, old: &String) -> Result<(), Error> {
        let hash = self.hash_password(password).await?;
        let key = user.to_owned();
        let mut tx = Tx::new();
        // The row itself is what must not have changed: a new password, or none, is worth more than a new cost.
        tx.expect::<Passwords>(&key, Some(old)).put::<Passwords>(&key, &hash);
        match self.store().commit(tx).await {
            Ok(_) | Err(chappe_store::Error::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The PHC string of a password under the configured cost.
    pub(crate) async fn hash_password(&self, password: &str) -> Result<String, Error> {
        let turn = self.inner.hashing.take().await?;
        let argon = self.argon()?;
        let salt = SaltString::encode_b64(&self.world().bytes::<16>()).map_err(|_| Error::Busy)?;
        let password = normalised(password);
        let hash = move || {
            let _turn = turn;
            argon.hash_password(password.as_bytes(), &salt).map(|hash| hash.to_string())
        };
        let hashed = self.world().spawn_blocking(hash).await.map_err(|_| Error::Busy)?;
        hashed.map_err(|error| Error::invalid(format!("password: {error}")))
    }

    fn argon(&self) -> Result<Argon2<'static>, Error> {
        let params = self
            .config()
            .password
            .cost()
            .map_err(|error| Error::invalid(format!("password hash cost: {error}")))?;
        Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, PasswordPolicy, Weakness, weakness};
    use crate::tests::server_with;

    #[tokio::test]
    async fn drawn_passwords_follow_the_policy() {
        for (minimum_length, is_strict) in [(8, false), (8, true), (40, true), (LONGEST, true)] {
            let policy = PasswordPolicy {
                minimum_length,
                require_digit: is_strict,
                require_symbol: is_strict,
                require_uppercase: is_strict,
                require_lowercase: is_strict,
                minimum_strength: 4,
            };
            policy.check().unwrap();
            let accounts = server_with(|config| config.password.policy = policy);
            let (one, other) = (accounts.draw_password(), accounts.draw_password());
            accounts.check_password(&one, Vec::new()).await.unwrap();
            assert_ne!(one, other);
        }
    }

    #[test]
    fn weaknesses_are_told_in_their_order() {
        let policy = PasswordPolicy {
            minimum_length: 8,
            require_digit: true,
            require_symbol: true,
            require_uppercase: true,
            require_lowercase: true,
            minimum_strength: 0,
        };
        for (password, expected) in [
            ("", Some(Weakness::TooShort)),
            ("Aa1!", Some(Weakness::TooShort)),
            ("abcdefgh", Some(Weakness::NoDigit)),
            ("abcdefg1", Some(Weakness::NoSymbol)),
            ("abcdef1!", Some(Weakness::NoUppercase)),
            ("ABCDEF1!", Some(Weakness::NoLowercase)),
            ("Abcdef1!", None),
            ("Abcdef1é", None),
        ] {
            assert_eq!(weakness(&policy, password), expected, "{password}");
        }
    }
}
