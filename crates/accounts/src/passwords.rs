//! Passwords: argon2id, off the async threads, a bounded number at a time. Bcrypt hashes of another server are verified, and
//! replaced when their users log in.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version,
    password_hash::SaltString,
};
use chappe_store::{Tx, accounts::Passwords};
use ruma::UserId;
use tokio::sync::OwnedSemaphorePermit;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use crate::{Accounts, Error, PasswordPolicy, Weakness};

/// The longest password that is looked at, in bytes.
const LONGEST: usize = 512;

/// The highest cost of an imported hash: about two seconds.
const MOST_BCRYPT: u32 = 15;
/// Memory, passes and lanes of a hash of argon2 that was made elsewhere.
const MOST_KIB: u32 = 256 << 10;
const MOST_PASSES: u32 = 16;
const MOST_LANES: u32 = 16;

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

/// Whether a text is a hash that this server can verify: bcrypt or argon2, of a cost that can be borne.
pub(crate) fn is_hash(text: &str) -> bool {
    if is_bcrypt(text) {
        let parts: Vec<&str> = text.split('$').collect();
        let [_, "2a" | "2b" | "2y", cost, rest] = parts[..] else { return false };
        return cost.len() == 2
            && rest.len() == 53
            && cost.parse().is_ok_and(|cost| (4..=MOST_BCRYPT).contains(&cost));
    }
    PasswordHash::new(text).is_ok_and(|hash| {
        let borne = Params::try_from(&hash).is_ok_and(|params| {
            params.m_cost() <= MOST_KIB && params.t_cost() <= MOST_PASSES && params.p_cost() <= MOST_LANES
        });
        borne && Algorithm::try_from(hash.algorithm).is_ok()
    })
}

fn is_bcrypt(hash: &str) -> bool {
    hash.starts_with("$2")
}

/// Whether a password fits a bcrypt hash, as Synapse makes it: normalised, and with the pepper behind.
fn fits_bcrypt(password: &str, pepper: &str, hash: &str) -> bool {
    let peppered = Zeroizing::new(password.nfkc().chain(pepper.chars()).collect::<String>());
    bcrypt::verify(peppered.as_bytes(), hash).unwrap_or(false)
}

impl Accounts {
    /// Checks a new password against the policy: [`Error::WeakPassword`], [`Error::TooLarge`] beyond 512 bytes.
    pub fn check_password(&self, password: &str) -> Result<(), Error> {
        if password.len() > LONGEST {
            return Err(Error::TooLarge("password"));
        }
        match weakness(&self.config().password.policy, password) {
            Some(weakness) => Err(Error::WeakPassword(weakness)),
            None => Ok(()),
        }
    }

    /// Checks a password for log-in. Unknown users, closed accounts and wrong passwords look the same and take the
    /// same time: [`Error::Forbidden`].
    pub async fn verify_password(&self, user: &UserId, password: &str) -> Result<(), Error> {
        if password.len() > LONGEST {
            return Err(REFUSED);
        }
        let turn = self.hashing_turn().await?;
        let stored = match self.user(user).await? {
            Some(found) if found.deactivated.is_none() => {
                self.store().read().get::<Passwords>(&user.to_owned()).await?
            }
            _ => None,
        };
        let phc = match &stored {
            Some(phc) => phc.clone(),
            None => self.decoy()?,
        };
        let given = Zeroizing::new(password.to_owned());
        let pepper = self.config().password.bcrypt_pepper.clone();
        let check = move || {
            let _turn = turn;
            if is_bcrypt(&phc) {
                return fits_bcrypt(&given, pepper.reveal(), &phc);
            }
            let Ok(hash) = PasswordHash::new(&phc) else { return false };
            Argon2::default().verify_password(given.as_bytes(), &hash).is_ok()
        };
        let matches = self.world().spawn_blocking(check).await.map_err(|_| Error::Busy)?;
        let Some(stored) = stored.filter(|_| matches) else { return Err(REFUSED) };
        if !self.is_current(&stored)
            && let Err(error) = self.renew_hash(user, password, &stored).await
        {
            tracing::warn!(%user, %error, "a password hash keeps its old cost until the next log-in");
        }
        Ok(())
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
        let turn = self.hashing_turn().await?;
        let argon = self.argon()?;
        let salt = SaltString::encode_b64(&self.world().bytes::<16>()).map_err(|_| Error::Busy)?;
        let password = Zeroizing::new(password.to_owned());
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

    /// One of the places for hashing; [`Error::Busy`] when too many wait. It belongs to the work, which goes on when whoever
    /// asked hangs up.
    async fn hashing_turn(&self) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), Error> {
        let place = Arc::clone(&self.inner.queue).try_acquire_owned().map_err(|_| Error::Busy)?;
        let turn = Arc::clone(&self.inner.hashing).acquire_owned().await.map_err(|_| Error::Busy)?;
        Ok((place, turn))
    }
}

#[cfg(test)]
mod tests {
    use super::{PasswordPolicy, Weakness, fits_bcrypt, is_hash, weakness};

    #[test]
    fn weaknesses_are_told_in_their_order() {
        let policy = PasswordPolicy {
            minimum_length: 8,
            require_digit: true,
            require_symbol: true,
            require_uppercase: true,
            require_lowercase: true,
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
    fn hashes_of_another_server_are_told_from_other_texts() {
        let hash = bcrypt::hash("pass\u{212b}pepper".replace('\u{212b}', "\u{c5}"), 4).unwrap();
        assert!(is_hash(&hash) && fits_bcrypt("pass\u{212b}", "pepper", &hash), "normalised");
        assert!(!fits_bcrypt("pass", "pepper", &hash) && !fits_bcrypt("pass\u{212b}", "", &hash));
        assert!(is_hash("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA"));
        let costly = ["m=4194304,t=1,p=1", "m=8,t=4294967295,p=1"]
            .map(|cost| format!("$argon2id$v=19${cost}$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA"));
        assert!(!costly.iter().any(|hash| is_hash(hash)), "more than can be borne");
        for bad in ["", "secret", "$2b$31$", &hash.replace("$04$", "$20$"), "$1$x$y", "$2x$04$"] {
            assert!(!is_hash(bad), "{bad}");
        }
    }
}
