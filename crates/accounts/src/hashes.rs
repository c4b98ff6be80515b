//! Hashes of passwords: argon2, and bcrypt of another server; what each costs, and how a comparison takes as long for everybody.

use std::collections::BTreeSet;

use argon2::{Algorithm, Argon2, Params, PasswordHash, PasswordVerifier};
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use crate::{PasswordConfig, Pepper};

/// What bcrypt reads of a password, in bytes.
pub(crate) const BCRYPT_READS: usize = 72;
/// The highest cost of an imported bcrypt hash, about half a second: all log-ins take as long while there are any.
const MOST_BCRYPT: u32 = 13;

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

pub(crate) fn is_bcrypt(hash: &str) -> bool {
    hash.starts_with("$2")
}

/// The beginning of a hash that says how long a comparison with it takes, the same for hashes that take as long. `None` for
/// what is no hash.
pub(crate) fn cost_of(hash: &str) -> Option<String> {
    if is_bcrypt(hash) {
        return Some(format!("$2b${}$", hash.split('$').nth(2)?));
    }
    let hash = PasswordHash::new(hash).ok()?;
    let params = Params::try_from(&hash).ok()?;
    let version = hash.version.unwrap_or(argon2::Version::V0x13.into());
    let (m, t, p) = (params.m_cost(), params.t_cost(), params.p_cost());
    Some(format!("${}$v={version}$m={m},t={t},p={p}$", hash.algorithm))
}

/// The cost of the hashes that this server makes.
pub(crate) fn cost_by(config: &PasswordConfig) -> String {
    format!("$argon2id$v=19$m={},t={},p={}$", config.memory_kib, config.passes, config.lanes)
}

/// A hash of this cost that is nobody's.
fn decoy(cost: &str) -> String {
    if is_bcrypt(cost) {
        return format!("{cost}{}", ".".repeat(53));
    }
    format!("{cost}{}${}", "A".repeat(22), "A".repeat(43))
}

/// A password as it is hashed: the same however a keyboard composes its letters.
pub(crate) fn normalised(password: &str) -> Zeroizing<String> {
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

/// What a password is compared with: one hash of each cost that is in use, the stored one among them, so that it takes as
/// long for everybody, also for nobody.
pub(crate) struct Trial {
    pub(crate) given: Zeroizing<String>,
    pub(crate) stored: Option<String>,
    pub(crate) pepper: Pepper,
    /// See [`cost_of`]; that of `stored` is among them.
    pub(crate) costs: BTreeSet<String>,
}

impl Trial {
    pub(crate) fn is_passed(&self) -> bool {
        let normal = normalised(&self.given);
        let mut passed = false;
        for hash in self.hashes() {
            let fits = self.fits(&normal, &hash);
            passed |= fits && self.stored.as_ref() == Some(&hash);
        }
        passed
    }

    fn hashes(&self) -> impl Iterator<Item = String> {
        let own = self.stored.as_deref().and_then(cost_of);
        let hash = move |cost: &String| match &self.stored {
            Some(stored) if own.as_ref() == Some(cost) => stored.clone(),
            _ => decoy(cost),
        };
        self.costs.iter().map(hash)
    }

    fn fits(&self, normal: &str, hash: &str) -> bool {
        if is_bcrypt(hash) {
            return fits_bcrypt(normal, self.pepper.reveal(), hash);
        }
        // A hash made elsewhere, or here before passwords were normalised, is of what was typed.
        fits_argon2(normal, hash) || (*self.given != *normal && fits_argon2(&self.given, hash))
    }
}

#[cfg(test)]
mod tests {
    use super::{PasswordConfig, Pepper, Trial, cost_by, cost_of, decoy, fits_bcrypt, normalised};

    fn is_hash(text: &str) -> bool {
        super::is_hash(text, &PasswordConfig::default())
    }

    #[test]
    fn everybody_is_compared_with_a_hash_of_each_cost() {
        let today = cost_by(&PasswordConfig::default());
        let costs = ["$2b$04$", "$2b$12$", &today, "$argon2id$v=19$m=8,t=1,p=1$"].map(str::to_owned);
        for (place, cost) in costs.iter().enumerate() {
            let hash = decoy(cost);
            assert!(is_hash(&hash) && cost_of(&hash).as_ref() == Some(cost), "{hash}");
            for stored in [None, Some(hash.replace(".......", "abcdefg").replace("AAAAAAA", "abcdefg"))] {
                let trial = Trial {
                    given: normalised("p"),
                    stored: stored.clone(),
                    pepper: Pepper::default(),
                    costs: costs.clone().into(),
                };
                let hashes: Vec<String> = trial.hashes().collect();
                let compared: Vec<String> = hashes.iter().filter_map(|hash| cost_of(hash)).collect();
                assert_eq!(compared, costs);
                assert!(stored.is_none_or(|stored| hashes[place] == stored));
            }
        }
        assert_eq!(cost_of("$2y$12$x"), cost_of("$2a$12$y"));
        assert!(!bcrypt::verify("", &decoy("$2b$04$")).unwrap());
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
