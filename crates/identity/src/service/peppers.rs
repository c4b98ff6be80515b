//! Peppers of hashed look-ups: one in use, and the next one while hashes are made for it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chappe_store::{
    Tx,
    identity_service::{AddressHashes, Associations, IdentityHeads, Peppers},
};

use super::{EMAIL, IdentityService, TRIES};
use crate::{Email, Error, validation::sha256};

/// The head record.
const HEAD: &str = "peppers";
/// Addresses hashed in one batch.
const PAGE: usize = 1000;
const DAY_MS: u64 = 24 * 3_600_000;

/// What a batch that writes hashes expects of the head.
pub(super) fn expect(tx: &mut Tx, head: &Vec<u8>) {
    tx.expect::<IdentityHeads>(&HEAD.to_owned(), Some(head));
}

/// The hash under which an address is looked up (identity service API, "Algorithms").
pub(super) fn hash(address: &Email, pepper: &str) -> [u8; 32] {
    sha256(format!("{address} {EMAIL} {pepper}").as_bytes())
}

/// The same as clients write it: URL-safe base64 without padding.
pub fn lookup_hash(address: &Email, pepper: &str) -> String {
    URL_SAFE_NO_PAD.encode(hash(address, pepper))
}

impl IdentityService {
    /// The pepper that clients hash with.
    pub async fn pepper(&self) -> Result<String, Error> {
        Ok(self.peppers().await?.0.pepper)
    }

    /// The peppers and their record as it is on disk; the first one is drawn when it is asked for.
    pub(super) async fn peppers(&self) -> Result<(Peppers, Vec<u8>), Error> {
        for _ in 0..TRIES {
            if let Some(bytes) = self.store().read().get::<IdentityHeads>(&HEAD.to_owned()).await? {
                let peppers =
                    serde_json::from_slice(&bytes).map_err(|_| chappe_store::Error::Corrupt("peppers"))?;
                return Ok((peppers, bytes));
            }
            let (pepper, since) = (self.world().token(32), self.world().now());
            let first = Peppers { number: 1, pepper, since, next: None };
            match self.replace(None, &first).await {
                Ok(()) | Err(Error::Store(chappe_store::Error::Conflict)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(chappe_store::Error::Conflict.into())
    }

    /// Turns the pepper if its time has come, or goes on turning it.
    pub(super) async fn turn_pepper_if_due(&self) -> Result<(), Error> {
        let (peppers, _) = self.peppers().await?;
        let lifetime = u64::from(self.config().service.pepper_days) * DAY_MS;
        let due = lifetime > 0 && peppers.since.saturating_add(lifetime) <= self.world().now();
        if due || peppers.next.is_some() { self.turn_pepper().await } else { Ok(()) }
    }

    /// Makes the hashes of a new pepper, then uses it. From the moment that the next pepper is on disk, every bind writes its
    /// hash as well, so that none is missing in the end.
    pub async fn turn_pepper(&self) -> Result<(), Error> {
        let (mut peppers, head) = self.peppers().await?;
        if peppers.next.is_none() {
            let begun = Peppers { next: Some(self.world().token(32)), ..peppers.clone() };
            self.replace(Some(&head), &begun).await?;
            peppers = begun;
        }
        let (number, Some(next)) = (peppers.number + 1, peppers.next.clone()) else { return Ok(()) };
        let mut from = (EMAIL.to_owned(), String::new());
        loop {
            let rows = self.store().read().scan_from::<Associations>(&EMAIL.to_owned(), &from, PAGE).await?;
            let whole = rows.len() < PAGE;
            let mut tx = Tx::new();
            let mut beyond = from.clone();
            for (key, row) in rows {
                if let Ok(email) = Email::parse(&key.1) {
                    // Whoever takes the address back meanwhile stops us: no hash of it is to stay behind.
                    tx.expect::<Associations>(&key, Some(&row));
                    let spelled = format!("{} {}", key.0, key.1);
                    tx.put::<AddressHashes>(&(number, hash(&email, &next)), &spelled);
                }
                beyond = (key.0, format!("{}\u{1}", key.1));
            }
            if !tx.is_empty() {
                match self.store().commit(tx).await {
                    Err(chappe_store::Error::Conflict) => continue,
                    done => drop(done?),
                }
            }
            from = beyond;
            if whole {
                break;
            }
        }
        let (now, head) = self.peppers().await?;
        if now.next.as_ref() == Some(&next) {
            let turned = Peppers { number, pepper: next, since: self.world().now(), next: None };
            self.replace(Some(&head), &turned).await?;
            tracing::info!("the pepper of look-ups was turned");
        }
        Ok(())
    }

    async fn replace(&self, old: Option<&Vec<u8>>, new: &Peppers) -> Result<(), Error> {
        let bytes = serde_json::to_vec(new).map_err(|_| chappe_store::Error::Corrupt("peppers"))?;
        let mut tx = Tx::new();
        tx.expect::<IdentityHeads>(&HEAD.to_owned(), old).put::<IdentityHeads>(&HEAD.to_owned(), &bytes);
        // Whatever hashes there are of peppers before are of no use any more.
        if new.next.is_none() {
            tx.delete_between::<AddressHashes>(&0_u32, &new.number);
        }
        self.store().commit(tx).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::lookup_hash;
    use crate::Email;

    /// The examples of the specification.
    #[test]
    fn hashes_are_those_of_the_specification() {
        for (address, hash) in [
            ("Alice@example.com", "4kenr7N9drpCJ4AfalmlGQVsOn3o2RHjkADUpXJWZUc"),
            ("bob@example.com", "LJwSazmv46n0hlMlsb_iYxI0_HXEqy_yj6Jm636cdT8"),
        ] {
            assert_eq!(lookup_hash(&Email::parse(address).unwrap(), "matrixrocks"), hash);
        }
    }
}
