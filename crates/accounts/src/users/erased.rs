//! Who is erased, in memory: it is asked about everybody who said what somebody reads who was not there.

use chappe_store::{
    Json, Meta, Tx,
    accounts::{User, Users},
};
use ruma::{OwnedUserId, UserId};

use super::{Erase, beyond};
use crate::{Accounts, Error, retry::retry};

/// Accounts read at once.
const PAGE: usize = 1_000;
/// The row that says that nothing is left of those whom an older release erased.
const FINISHED: &str = "erasures_finished";

fn is_erased(user: &User) -> bool {
    user.deactivated.as_ref().is_some_and(|closed| closed.erase)
}

impl Accounts {
    /// Whether anybody is: where nobody is, no event has to be looked at.
    pub fn has_erased(&self) -> bool {
        !self.inner.erased.read().is_empty()
    }

    /// Whether somebody's account here was closed and erased.
    pub fn is_erased(&self, user: &UserId) -> bool {
        self.inner.erased.read().contains(user)
    }

    /// Finds out who is erased, at the start: goes through all accounts once.
    pub async fn learn_erased(&self) -> Result<(), Error> {
        let (reader, mut from) = (self.store().read(), String::new());
        loop {
            let page = reader.scan_from::<Users>(&(), &from, PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from = beyond(last);
            let erased = page.into_iter().filter(|(_, Json(user))| is_erased(user));
            self.inner.erased.write().extend(erased.map(|(user, _)| user));
        }
    }

    /// Forgets of those who are known to be erased what older releases left of them, once. Meant to be called at the start,
    /// after [`Accounts::learn_erased`].
    pub async fn finish_erasures(&self) -> Result<(), Error> {
        let row = FINISHED.to_owned();
        if self.store().read().get::<Meta>(&row).await?.is_some() {
            return Ok(());
        }
        let erased: Vec<OwnedUserId> = self.inner.erased.read().iter().cloned().collect();
        for user in &erased {
            retry!({
                let (reader, mut tx) = (self.store().read(), Tx::new());
                self.draft_erasure(&reader, &mut tx, user).await?;
                drop(reader);
                self.store().commit(tx).await?;
                Ok(())
            })?;
        }
        let mut tx = Tx::new();
        tx.put::<Meta>(&row, &vec![1]);
        self.store().commit(tx).await?;
        Ok(())
    }

    /// As [`Accounts::commit_of`], for what may change whether a user is erased: memory follows in the same task.
    pub(super) async fn commit_standing(&self, user: &UserId, tx: Tx, erase: Erase) -> Result<(), Error> {
        let (accounts, user) = (self.clone(), user.to_owned());
        let work = async move {
            if erase == Erase::Yes {
                // Before it is so, for whoever reads meanwhile.
                accounts.inner.erased.write().insert(user.clone());
            }
            let done = accounts.commit_of(&user, tx).await;
            accounts.learn_whether_erased(&user).await?;
            done
        };
        self.world().spawn("standing of a user", work).await.map_err(|_| Error::Busy)?
    }

    /// Has memory say of a user what the disk says, after that has changed. One at a time: the last one is right.
    async fn learn_whether_erased(&self, user: &UserId) -> Result<(), Error> {
        let _turn = self.turn(user).await;
        if self.user(user).await?.is_some_and(|user| is_erased(&user)) {
            self.inner.erased.write().insert(user.to_owned());
        } else {
            self.inner.erased.write().remove(user);
        }
        Ok(())
    }
}
