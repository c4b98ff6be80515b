//! How long accounts are good for: their end, the mails before it, renewal, and the closing of those that nobody renewed.
//!
//! The end stands in the head record, so that admitting a requester reads nothing more. What is to be done about it
//! is found in a table ordered by time. A mail is noted before it goes out: a crash loses one rather than sending two.

mod enrolment;
mod renewal;

use chappe_rules::glob::{Glob, folded};
use chappe_store::{
    AccountNews, Json, Reader, Tx,
    accounts::{Threepids, User, UserKind, Users},
    validity::{Renewal, RenewalCode, RenewalLink, RenewalLinks, Renewals, RenewalsDue},
};
use ruma::{OwnedUserId, UserId};

pub use self::renewal::{RenewalSecret, Renewed};
use crate::{Accounts, Erase, Error, retry::retry, tokens::refusal, users::beyond};

pub(crate) const DAY_MS: u64 = 86_400_000;
/// When a mail that did not go out is tried again.
const AGAIN_MS: u64 = 900_000;
/// How often an account that has ended and is never closed is looked at.
const SELDOM_MS: u64 = 30 * DAY_MS;

/// How long an account is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// When it ends, in milliseconds since 1970; `None`: never.
    pub ends: Option<u64>,
    /// Whether it has ended.
    pub over: bool,
    /// Whether mails go out before the end.
    pub mails: bool,
}

/// A mail that is to go out. What renews the account is kept as a hash only.
#[derive(Clone, PartialEq, Eq)]
pub struct Reminder {
    /// When the account ends or ended, in milliseconds since 1970.
    pub ends: u64,
    /// What renews it.
    pub secret: RenewalSecret,
    /// The mail that was noted as sent before this one, and what is noted of this one.
    told: (Option<u64>, Option<u64>),
}

/// What is to be done about an account now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Nothing more.
    Done,
    /// Mail its user; this is noted already.
    Mail(Reminder),
    /// Nothing more: it was closed, since nobody had renewed it.
    Closed,
}

impl std::fmt::Debug for Reminder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reminder").field("ends", &self.ends).finish_non_exhaustive()
    }
}

impl Accounts {
    /// Whether accounts end.
    pub fn accounts_end(&self) -> bool {
        self.config().validity.days > 0
    }

    fn period(&self) -> u64 {
        u64::from(self.config().validity.days) * DAY_MS
    }

    /// When an account ends that is made or opened again now.
    pub(crate) fn first_end(&self, kind: UserKind) -> Option<u64> {
        (self.accounts_end() && kind == UserKind::User).then(|| self.world().now() + self.period())
    }

    /// When an account ends.
    pub(crate) fn end_of(&self, user: &User) -> Option<u64> {
        user.ends.filter(|_| self.accounts_end())
    }

    /// Whether an account has ended as its record says, exempt or not.
    pub fn is_over(&self, user: &User) -> bool {
        self.end_of(user).is_some_and(|at| at <= self.world().now())
    }

    /// Whether an account has ended. One that is exempt since gets another period.
    pub(crate) async fn has_ended(&self, id: &UserId, user: &User) -> Result<bool, Error> {
        if !self.is_over(user) {
            return Ok(false);
        }
        if !self.is_exempt(&self.store().read(), id).await? {
            return Ok(true);
        }
        self.renew(id).await.map(|_| false)
    }

    /// [`Error::Expired`] for an account that has ended.
    pub(crate) async fn check_end(&self, id: &UserId, user: &User) -> Result<(), Error> {
        if self.has_ended(id, user).await? { Err(Error::Expired) } else { Ok(()) }
    }

    /// Whether a local account may do anything: [`Error::NotFound`], [`Error::Deactivated`], [`Error::Locked`],
    /// [`Error::Expired`] if not.
    pub async fn standing(&self, user: &UserId) -> Result<(), Error> {
        let record = self.user(user).await?.ok_or(Error::NotFound("user"))?;
        refusal(&record).map_or(Ok(()), Err)?;
        self.check_end(user, &record).await
    }

    async fn is_exempt(&self, reader: &Reader<'_>, user: &UserId) -> Result<bool, Error> {
        let exempt = &self.config().validity.exempt;
        let any = |of_users: bool, text: &str| {
            let mut patterns = exempt.iter().filter(|pattern| pattern.starts_with('@') == of_users);
            patterns.any(|pattern| Glob::new(pattern).matches(&folded(text)))
        };
        if any(true, user.as_str()) {
            return Ok(true);
        }
        if exempt.iter().all(|pattern| pattern.starts_with('@')) {
            return Ok(false);
        }
        let addresses = reader.scan_all::<Threepids>(&user.to_owned()).await?;
        Ok(addresses.iter().any(|((_, _, address), _)| any(false, address)))
    }

    /// How long an account is good for. [`Error::NotFound`].
    pub async fn validity(&self, user: &UserId) -> Result<Validity, Error> {
        let reader = self.store().read();
        let Json(record) = reader.get::<Users>(&user.to_owned()).await?.ok_or(Error::NotFound("user"))?;
        let row = reader.get::<Renewals>(&user.to_owned()).await?;
        let mails = row.is_some_and(|Json(row)| !row.quiet);
        let ends = if self.is_exempt(&reader, user).await? { None } else { self.end_of(&record) };
        Ok(Validity { ends, over: ends.is_some_and(|at| at <= self.world().now()), mails })
    }

    /// Has an account end at `ends` (milliseconds since 1970); `mails` says whether mails go out before. What was mailed
    /// until now renews nothing more. [`Error::NotFound`], [`Error::Deactivated`]; [`Error::Invalid`] for accounts that
    /// never end.
    pub async fn set_end(&self, user: &UserId, ends: u64, mails: Option<bool>) -> Result<(), Error> {
        self.change_end(user, |_| ends, mails, None).await.map(drop)
    }

    /// Has an account end when `ends` says, which is given the end until now; gives the new one. The log gets `news`.
    async fn change_end(
        &self,
        user: &UserId,
        ends: impl Fn(Option<u64>) -> u64 + Send + Sync,
        mails: Option<bool>,
        news: Option<AccountNews>,
    ) -> Result<u64, Error> {
        retry!({
            let reader = self.store().read();
            let key = user.to_owned();
            let Json(old) = reader.get::<Users>(&key).await?.ok_or(Error::NotFound("user"))?;
            if old.deactivated.is_some() {
                return Err(Error::Deactivated);
            }
            if !self.accounts_end() || old.kind != UserKind::User {
                return Err(Error::invalid("this account has no end"));
            }
            let (mut tx, ends) = (Tx::new(), ends(old.ends));
            let record = User { ends: Some(ends), revision: old.revision + 1, ..old.clone() };
            tx.expect::<Users>(&key, Some(&Json(old))).put::<Users>(&key, &Json(record));
            self.draft_end(&reader, &mut tx, &key, (ends, mails)).await?;
            if let Some(news) = news {
                tx.log(self.news(user, news));
            }
            drop(reader);
            self.commit_of(user, tx).await?;
            Ok(ends)
        })
    }

    /// Gives an account another period from now on, unless it has longer already; gives its end.
    pub async fn renew(&self, user: &UserId) -> Result<u64, Error> {
        let ends = |known: Option<u64>| known.unwrap_or_default().max(self.world().now() + self.period());
        self.change_end(user, ends, None, Some(AccountNews::Renewed)).await
    }

    /// As [`Accounts::set_end`], from now on for another period if no end is said; gives the end.
    pub async fn say_end(&self, user: &UserId, ends: Option<u64>, mails: Option<bool>) -> Result<u64, Error> {
        let ends = ends.unwrap_or_else(|| self.world().now() + self.period());
        self.set_end(user, ends, mails).await?;
        Ok(ends)
    }

    /// What a new end writes beside the head record, which has to be replaced in the same batch.
    pub(crate) async fn draft_end(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        user: &OwnedUserId,
        (ends, mails): (u64, Option<bool>),
    ) -> Result<(), Error> {
        let old = reader.get::<Renewals>(user).await?;
        let mut row = Renewal { quiet: mails == Some(false), ..Renewal::default() };
        row.due = self.next_look(ends, &row);
        if let Some(Json(old)) = &old {
            row.quiet = mails.map_or(old.quiet, |mails| !mails);
            row.code = old.code.clone().map(|code| RenewalCode { used: true, ..code });
            for hash in &old.links {
                if let Some(Json(link)) = reader.get::<RenewalLinks>(hash).await? {
                    tx.put::<RenewalLinks>(hash, &Json(RenewalLink { used: true, ..link }));
                }
            }
        }
        draft_row(tx, user, old.as_ref(), row);
        Ok(())
    }

    /// Has an account end never more, and nothing that was mailed renew it.
    pub(crate) async fn draft_no_end(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        user: &OwnedUserId,
    ) -> Result<(), Error> {
        let Some(old) = reader.get::<Renewals>(user).await? else { return Ok(()) };
        for hash in &old.0.links {
            tx.delete::<RenewalLinks>(hash);
        }
        tx.delete::<RenewalsDue>(&(old.0.due, user.clone()));
        tx.expect::<Renewals>(user, Some(&old)).delete::<Renewals>(user);
        Ok(())
    }

    /// The distances from the end at which mails go out, in milliseconds.
    fn distances(&self) -> impl Iterator<Item = u64> {
        let days = self.config().validity.mail_days_before.clone();
        days.into_iter().map(|days| u64::from(days) * DAY_MS)
    }

    /// When an account that ends at `ends` is to be looked at next.
    fn next_look(&self, ends: u64, row: &Renewal) -> u64 {
        if let Some(ended) = row.ended {
            return match u64::from(self.config().validity.close_after_days) {
                0 => self.world().now() + SELDOM_MS,
                days => ended + days * DAY_MS,
            };
        }
        let left = self.distances().filter(|distance| row.told.is_none_or(|told| *distance < told));
        ends.saturating_sub(left.max().unwrap_or_default())
    }

    /// Up to `limit` accounts that are to be looked at by now, after `after`.
    pub async fn ends_due(
        &self,
        after: Option<&(u64, OwnedUserId)>,
        limit: usize,
    ) -> Result<Vec<(u64, OwnedUserId)>, Error> {
        let from = after.map_or((0, String::new()), |(at, user)| (*at, beyond(user)));
        let rows = self.store().read().scan_from::<RenewalsDue>(&(), &from, limit).await?;
        let now = self.world().now();
        Ok(rows.into_iter().map(|(key, ())| key).take_while(|(at, _)| *at <= now).collect())
    }

    /// Looks at an account whose time has come, and closes it where that is due: in one batch with the look at what would have
    /// renewed it. Of several mails that should have gone out meanwhile, as after a stop or a
    /// jump of the clock, only the last one does.
    pub async fn look_at_end(&self, user: &UserId) -> Result<Duty, Error> {
        let (key, validity) = (user.to_owned(), &self.config().validity);
        if validity.days == 0 {
            return Ok(Duty::Done);
        }
        retry!({
            let reader = self.store().read();
            let now = self.world().now();
            let Some(row) = reader.get::<Renewals>(&key).await? else { return Ok(Duty::Done) };
            let Some(Json(record)) = reader.get::<Users>(&key).await? else { return Ok(Duty::Done) };
            let Some(ends) = record.ends.filter(|_| row.0.due <= now) else { return Ok(Duty::Done) };
            if self.is_exempt(&reader, user).await? {
                self.renew(user).await?;
                return Ok(Duty::Done);
            }
            let close_after = u64::from(validity.close_after_days) * DAY_MS;
            if row.0.ended.is_some_and(|ended| close_after > 0 && ended + close_after <= now) {
                let mut tx = Tx::new();
                self.draft_closing(&reader, &mut tx, (user, record), Erase::No).await?;
                drop(reader);
                self.commit_of(user, tx).await?;
                return Ok(Duty::Closed);
            }
            let mut new = row.0.clone();
            if ends <= now {
                new.ended.get_or_insert(now);
            }
            let fresh = |distance: &u64| row.0.told.is_none_or(|told| *distance < told);
            let passed = |distance: &u64| ends.saturating_sub(*distance) <= now;
            let distance = self.distances().filter(|distance| fresh(distance) && passed(distance)).min();
            new.told = distance.or(new.told);
            new.due = self.next_look(ends, &new);
            let mut tx = Tx::new();
            let secret =
                (distance.is_some() && !new.quiet).then(|| self.draw_renewal(user, &mut tx, &mut new));
            let told = (row.0.told, new.told);
            draft_row(&mut tx, &key, Some(&row), new);
            drop(reader);
            self.store().commit(tx).await?;
            Ok(secret.map_or(Duty::Done, |secret| Duty::Mail(Reminder { ends, secret, told })))
        })
    }

    /// Takes back that a mail went out, unless the account was renewed meanwhile: it is tried again in a while.
    pub async fn mail_failed(&self, user: &UserId, mail: &Reminder) -> Result<(), Error> {
        let key = user.to_owned();
        retry!({
            let Some(row) = self.store().read().get::<Renewals>(&key).await? else { return Ok(()) };
            let (before, noted) = mail.told;
            if row.0.told != noted {
                return Ok(());
            }
            let due = self.world().now() + AGAIN_MS;
            let new = Renewal { told: before, due, ..row.0.clone() };
            let mut tx = Tx::new();
            draft_row(&mut tx, &key, Some(&row), new);
            self.store().commit(tx).await?;
            Ok(())
        })
    }
}

/// Replaces how an account's end is dealt with, and its place in the order of time.
fn draft_row(tx: &mut Tx, user: &OwnedUserId, old: Option<&Json<Renewal>>, new: Renewal) {
    if let Some(Json(old)) = old {
        tx.delete::<RenewalsDue>(&(old.due, user.clone()));
    }
    tx.put::<RenewalsDue>(&(new.due, user.clone()), &());
    tx.expect::<Renewals>(user, old).put::<Renewals>(user, &Json(new));
}
