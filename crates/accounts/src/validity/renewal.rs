//! Links and codes that renew accounts.

use chappe_store::{
    Json, Table, Tx,
    accounts::{Expiries, Users},
    validity::{Renewal, RenewalCode, RenewalLink, RenewalLinks, Renewals},
};
use ruma::UserId;

use super::{Reminder, draft_row};
use crate::{Accounts, Error, retry::retry, tokens::sha256};

/// Links of one account that are good at a time.
const LINKS: usize = 10;
/// Wrong codes after which a code is dead.
const FAILURES: u32 = 10;

/// What renews an account.
#[derive(Clone, PartialEq, Eq)]
pub enum RenewalSecret {
    /// The token of a link: 43 random letters and digits.
    Link(String),
    /// A code of 8 digits, good together with an access token of the account.
    Code(String),
}

/// What became of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// The account ends then, in milliseconds since 1970.
    Until(u64),
    /// This has renewed the account before; nothing was done.
    Before,
}

impl std::fmt::Debug for RenewalSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RenewalSecret")
    }
}

impl Accounts {
    /// Makes something that renews an account whose user asks for a mail. [`Error::Invalid`] for accounts that never end.
    pub async fn renewal(&self, user: &UserId) -> Result<Reminder, Error> {
        let key = user.to_owned();
        retry!({
            let reader = self.store().read();
            let record = reader.get::<Users>(&key).await?.map(|Json(record)| record);
            let ends = record.and_then(|record| self.end_of(&record));
            let (Some(ends), Some(row)) = (ends, reader.get::<Renewals>(&key).await?) else {
                return Err(Error::invalid("this account has no end"));
            };
            let mut new = row.0.clone();
            let mut tx = Tx::new();
            let secret = self.draw_renewal(user, &mut tx, &mut new);
            let told = (row.0.told, row.0.told);
            draft_row(&mut tx, &key, Some(&row), new);
            drop(reader);
            self.store().commit(tx).await?;
            Ok(Reminder { ends, secret, told })
        })
    }

    /// Draws a link or a code. A code ends the one before.
    pub(super) fn draw_renewal(&self, user: &UserId, tx: &mut Tx, row: &mut Renewal) -> RenewalSecret {
        if !self.config().validity.links {
            let code = format!("{:08}", self.world().below(100_000_000));
            row.code = Some(RenewalCode { hash: code_hash(user, &code), failures: 0, used: false });
            return RenewalSecret::Code(code);
        }
        while row.links.len() >= LINKS {
            tx.delete::<RenewalLinks>(&row.links.remove(0));
        }
        let token = self.world().token(43);
        let (hash, expires) = (sha256(&token), self.world().now() + self.period());
        row.links.push(hash);
        let link = RenewalLink { user: user.to_owned(), expires, used: false };
        tx.put::<RenewalLinks>(&hash, &Json(link));
        tx.put::<Expiries>(&(expires, RenewalLinks::INFO.number, hash), &());
        RenewalSecret::Link(token)
    }

    /// Renews the account that a link's token is for. [`Error::NotFound`] for others.
    pub async fn renew_by_link(&self, token: &str) -> Result<Renewed, Error> {
        let link = self.store().read().get::<RenewalLinks>(&sha256(token)).await?;
        let Some(Json(link)) = link.filter(|Json(link)| self.world().now() < link.expires) else {
            return Err(Error::NotFound("renewal"));
        };
        if link.used {
            return Ok(Renewed::Before);
        }
        self.renew(&link.user).await.map(Renewed::Until)
    }

    /// Renews a user's account by the code that was mailed last. [`Error::NotFound`] for wrong ones, of which each code
    /// bears ten.
    pub async fn renew_by_code(&self, user: &UserId, code: &str) -> Result<Renewed, Error> {
        const WRONG: Error = Error::NotFound("renewal");
        let key = user.to_owned();
        let used = retry!({
            let row = self.store().read().get::<Renewals>(&key).await?.ok_or(WRONG)?;
            let mut known = row.0.code.clone().filter(|known| known.failures < FAILURES).ok_or(WRONG)?;
            if known.hash == code_hash(user, code) {
                return Ok(Some(known.used));
            }
            known.failures += 1;
            let new = Renewal { code: Some(known), ..row.0.clone() };
            let mut tx = Tx::new();
            draft_row(&mut tx, &key, Some(&row), new);
            self.store().commit(tx).await?;
            Ok(None)
        })?;
        match used {
            None => Err(WRONG),
            Some(true) => Ok(Renewed::Before),
            Some(false) => self.renew(user).await.map(Renewed::Until),
        }
    }
}

fn code_hash(user: &UserId, code: &str) -> [u8; 32] {
    sha256(&format!("{user}\0{code}"))
}
