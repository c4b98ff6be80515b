//! Accounts that get an end because accounts end from now on.

use std::sync::atomic::Ordering::Relaxed;

use chappe_store::{
    Json, Tx,
    accounts::{User, UserKind, Users},
    validity::{Enrolment, Enrolments},
};

use crate::{Accounts, Error, retry::retry, users::beyond};

/// Accounts that get their end in one commit.
const ENROLLED_AT_ONCE: usize = 200;
/// The name of the one row.
const ENROLMENT: &str = "accounts";

impl Accounts {
    /// Gives an end to some accounts that have none, or one that passed while accounts did not end: up to a tenth of the
    /// period before it is over, so that not all of them ask at once. Says whether there may be more.
    pub async fn enrol_some(&self) -> Result<bool, Error> {
        let (name, period) = (ENROLMENT.to_owned(), self.period());
        if period == 0 {
            return Ok(false);
        }
        retry!({
            let reader = self.store().read();
            let known = reader.get::<Enrolments>(&name).await?;
            let Json(progress) = known.clone().unwrap_or_default();
            if progress.done {
                return Ok(false);
            }
            let page = reader.scan_from::<Users>(&(), &progress.after, ENROLLED_AT_ONCE).await?;
            let done = page.len() < ENROLLED_AT_ONCE;
            let after = page.last().map_or(progress.after, |(user, _)| beyond(user));
            let mut tx = Tx::new();
            let mut enrolled = Vec::new();
            let now = self.world().now();
            for (user, Json(old)) in page {
                let has_one = old.ends.is_some_and(|at| at > now);
                if has_one || old.deactivated.is_some() || old.kind != UserKind::User {
                    continue;
                }
                let ends = now + period - self.world().below(period / 10);
                let record = User { ends: Some(ends), revision: old.revision + 1, ..old.clone() };
                tx.expect::<Users>(&user, Some(&Json(old))).put::<Users>(&user, &Json(record));
                self.draft_end(&reader, &mut tx, &user, (ends, None)).await?;
                enrolled.push(user);
            }
            tx.expect::<Enrolments>(&name, known.as_ref());
            tx.put::<Enrolments>(&name, &Json(Enrolment { after, done }));
            drop(reader);
            self.store().commit(tx).await?;
            for user in &enrolled {
                self.inner.cache.forget(user);
            }
            Ok(!done)
        })
    }

    /// Notes that accounts did not end for a while, if that is so: now that they do again, those whose end has passed get
    /// another one.
    pub async fn end_enrolment(&self) -> Result<(), Error> {
        if !self.inner.endless.swap(false, Relaxed) {
            return Ok(());
        }
        let forgotten = self.forget_enrolment().await;
        if forgotten.is_err() {
            self.inner.endless.store(true, Relaxed);
        }
        forgotten
    }

    async fn forget_enrolment(&self) -> Result<(), Error> {
        let name = ENROLMENT.to_owned();
        if self.store().read().get::<Enrolments>(&name).await?.is_some() {
            let mut tx = Tx::new();
            tx.delete::<Enrolments>(&name);
            self.store().commit(tx).await?;
        }
        Ok(())
    }
}
