//! Passwords: argon2id, off the async threads, a bounded number at a time. Bcrypt hashes of another server are verified, and
//! replaced when their users log in.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version,
    password_hash::SaltString,
};
use chappe_store::{
    Reader, Tx,
    accounts::{BcryptCost, Passwords},
};
use ruma::UserId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use crate::{
    Accounts, Error, PasswordConfig, PasswordPolicy, Pepper, Weakness, strength::strength, users::beyond,
};

/// The longest password that is looked at, in characters, as Synapse counts.
const LONGEST: usize = 512;
/// What bcrypt reads of a password, in bytes.
const BCRYPT_READS: usize = 72;

/// The highest cost of an imported bcrypt hash, about half a second: all log-ins take as long while there are any.
const MOST_BCRYPT: u32 = 13;
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

/// Whether a text is a hash that this server can verify: bcrypt of a cost that can be borne, or argon2 that is no dearer than
/// what `config` says.
pub(crate) fn is_hash(text: &str, config: &PasswordConfig) -> bool {
    if is_bcrypt(text) {
        let parts: Vec<&str> = text.split('$').collect();
        let [_, "2a" | "2b" | "2y", cost, rest] = parts[..] else { return false };
        return cost.len() == 2
            && rest.len() == 53
            && cost.parse().is_ok_and(|cost| (4..=MOST_BCRYPT).contains(&cost));
    }
    PasswordHash::new(text).is_ok_and(|hash| {
        let work = |kib: u32, passes: u32| u64::from(kib) * u64::from(passes);
        let is_borne = Params::try_from(&hash).is_ok_and(|params| {
            params.m_cost() <= config.memory_kib
                && params.p_cost() <= config.lanes
                && work(params.m_cost(), params.t_cost()) <= work(config.memory_kib, config.passes)
        });
        is_borne && Algorithm::try_from(hash.algorithm).is_ok()
    })
}

fn is_bcrypt(hash: &str) -> bool {
    hash.starts_with("$2")
}

/// The cost that a bcrypt hash names.
fn bcrypt_cost(hash: &str) -> Option<u64> {
    is_bcrypt(hash).then(|| hash.split('$').nth(2)?.parse().ok()).flatten()
}

fn is_too_long(password: &str) -> bool {
    password.chars().count() > LONGEST
}

/// A password as it is hashed: the same however a keyboard composes its letters.
fn normalised(password: &str) -> Zeroizing<String> {
    Zeroizing::new(password.nfkc().collect())
}

/// Whether a normalised password fits a bcrypt hash, as Synapse makes it: with the pepper behind, cut where bcrypt stops reading.
fn fits_bcrypt(password: &str, pepper: &str, hash: &str) -> bool {
    let mut peppered = Zeroizing::new([password.as_bytes(), pepper.as_bytes()].concat());
    peppered.truncate(BCRYPT_READS);
    bcrypt::verify(&*peppered, hash).unwrap_or(false)
}

fn fits_argon2(password: &str, hash: &str) -> bool {
    let Ok(hash) = PasswordHash::new(hash) else { return false };
    Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
}

/// Takes the time that a bcrypt hash of the cost `dearest` takes longer than one of the cost `spent`, 0 for none at all.
fn spend_bcrypt(spent: u64, dearest: u64) {
    // Each step of the cost doubles the time: all from one cost up to another make the difference.
    let costs = if spent == 0 { dearest..=dearest } else { spent..=dearest.saturating_sub(1) };
    for cost in costs {
        let _ = bcrypt::verify("", &bcrypt_decoy(cost));
    }
}

fn bcrypt_decoy(cost: u64) -> String {
    format!("$2b${cost:02}${}", ".".repeat(53))
}

/// What a password is compared with. It takes as long for everybody, also for nobody: one argon2 hash, and the dearest bcrypt
/// hash as long as there are any.
struct Trial {
    given: Zeroizing<String>,
    stored: Option<String>,
    pepper: Pepper,
    decoy: String,
    dearest_bcrypt: u64,
}

impl Trial {
    fn is_passed(&self) -> bool {
        let (given, normal) = (self.given.as_str(), normalised(&self.given));
        let bcrypt = self.stored.as_ref().and_then(|hash| Some((hash, bcrypt_cost(hash)?)));
        let argon2 = self.stored.as_ref().filter(|_| bcrypt.is_none());
        let hash = argon2.unwrap_or(&self.decoy);
        // A hash made elsewhere, or here before passwords were normalised, is of what was typed.
        let by_argon2 = fits_argon2(&normal, hash) || (given != *normal && fits_argon2(given, hash));
        let by_bcrypt = bcrypt.is_some_and(|(hash, _)| fits_bcrypt(&normal, self.pepper.reveal(), hash));
        if self.dearest_bcrypt > 0 {
            spend_bcrypt(bcrypt.map_or(0, |(_, cost)| cost), self.dearest_bcrypt);
        }
        by_argon2 || by_bcrypt
    }
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
        let (hashes, costs) = reader.get_both::<Passwords, BcryptCost>(&[key], &[()]).await?;
        drop(reader);
        let stored = hashes.into_iter().flatten().next().filter(|_| is_open);
        let known = costs.into_iter().flatten().next().unwrap_or_default();
        let cost = stored.as_deref().and_then(bcrypt_cost).unwrap_or_default();
        let trial = Trial {
            given: Zeroizing::new(password.to_owned()),
            stored: stored.clone(),
            pepper: self.config().password.bcrypt_pepper.clone(),
            decoy: self.decoy()?,
            dearest_bcrypt: known.max(cost),
        };
        let check = move || {
            let _turn = turn;
            trial.is_passed()
        };
        let passed = self.world().spawn_blocking(check).await.map_err(|_| Error::Busy)?;
        if cost > known {
            self.note_bcrypt_cost(cost).await?;
        }
        let Some(stored) = stored.filter(|_| passed) else { return Err(REFUSED) };
        // Behind what bcrypt reads, anything may have been typed: a hash of all of it could shut the user out.
        let is_whole = !is_bcrypt(&stored) || normalised(password).len() < BCRYPT_READS;
        if is_whole
            && !self.is_current(&stored)
            && let Err(error) = self.renew_hash(user, password, &stored).await
        {
            tracing::warn!(%user, %error, "a password hash keeps its old cost until the next log-in");
        }
        Ok(())
    }

    /// Notes that there are bcrypt hashes of this cost.
    async fn note_bcrypt_cost(&self, cost: u64) -> Result<(), Error> {
        let mut tx = Tx::new();
        tx.put::<BcryptCost>(&(), &cost);
        Ok(self.store().commit(tx).await.map(drop)?)
    }

    /// The same as part of making an account.
    pub(crate) async fn draft_bcrypt_cost(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        hash: &str,
    ) -> Result<(), Error> {
        let Some(cost) = bcrypt_cost(hash) else { return Ok(()) };
        if reader.get::<BcryptCost>(&()).await?.is_none_or(|known| known < cost) {
            tx.put::<BcryptCost>(&(), &cost);
        }
        Ok(())
    }

    /// Looks which bcrypt hashes are left, if there were any: without them, log-ins cost less. Meant to be called at the start.
    pub async fn settle_bcrypt_cost(&self) -> Result<(), Error> {
        let reader = self.store().read();
        let Some(known) = reader.get::<BcryptCost>(&()).await? else { return Ok(()) };
        let (mut from, mut left) = (String::new(), None);
        loop {
            let page = reader.scan_from::<Passwords>(&(), &from, PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            from = beyond(last);
            left = left.max(page.iter().filter_map(|(_, hash)| bcrypt_cost(hash)).max());
        }
        drop(reader);
        let mut tx = Tx::new();
        tx.expect::<BcryptCost>(&(), Some(&known));
        match left {
            Some(cost) => tx.put::<BcryptCost>(&(), &cost),
            None => tx.delete::<BcryptCost>(&()),
        };
        Ok(self.store().commit(tx).await.map(drop)?)
    }

    /// Whether a hash costs what the configuration says.
    fn is_current(&self, phc: &str) -> bool {
        let config = &self.config().password;
        PasswordHash::new(phc).is_ok_and(|hash| {
            hash.algorithm == Algorithm::Argon2id.ident()
                && Params::try_from(&hash).is_ok_and(|params| {
                    (params.m_cost(), params.t_cost(), params.p_cost())
                        == (config.memory_kib, config.passes, config.lanes)
                })
        })
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

    /// A hash that no password has, of the usual cost.
    fn decoy(&self) -> Result<String, Error> {
        let config = &self.config().password;
        let (salt, hash) = (self.world().bytes::<16>(), self.world().bytes::<32>());
        let salt = SaltString::encode_b64(&salt).map_err(|_| Error::Busy)?;
        let hash = SaltString::encode_b64(&hash).map_err(|_| Error::Busy)?;
        let (m, t, p) = (config.memory_kib, config.passes, config.lanes);
        Ok(format!("$argon2id$v=19$m={m},t={t},p={p}${salt}${hash}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        PasswordConfig, PasswordPolicy, Weakness, bcrypt_cost, bcrypt_decoy, fits_bcrypt, normalised,
        weakness,
    };

    fn is_hash(text: &str) -> bool {
        super::is_hash(text, &PasswordConfig::default())
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

    #[test]
    fn what_takes_as_long_as_a_hash_is_one() {
        assert!(is_hash(&bcrypt_decoy(4)) && bcrypt_cost(&bcrypt_decoy(12)) == Some(12));
        assert!(!bcrypt::verify("", &bcrypt_decoy(4)).unwrap());
    }

    #[test]
    fn hashes_of_another_server_are_told_from_other_texts() {
        let hash = bcrypt::hash("pass\u{212b}pepper".replace('\u{212b}', "\u{c5}"), 4).unwrap();
        let fits = |password: &str, pepper| fits_bcrypt(&normalised(password), pepper, &hash);
        assert!(is_hash(&hash) && fits("pass\u{212b}", "pepper") && fits("passA\u{30a}", "pepper"));
        assert!(!fits("pass", "pepper") && !fits("pass\u{212b}", ""));
        assert!(is_hash("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA"));
        let costly = ["m=4194304,t=1,p=1", "m=8,t=4294967295,p=1", "m=19456,t=3,p=1", "m=8,t=1,p=2"]
            .map(|cost| format!("$argon2id$v=19${cost}$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA"));
        assert!(!costly.iter().any(|hash| is_hash(hash)), "more than can be borne");
        for bad in ["", "secret", "$2b$31$", &hash.replace("$04$", "$14$"), "$1$x$y", "$2x$04$"] {
            assert!(!is_hash(bad), "{bad}");
        }
    }
}
