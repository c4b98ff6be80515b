//! Accounts that end: mails in time, pages, and the round that finds who is due.

use chappe_accounts::{Accounts, Duty, Reminder, RenewalSecret, Renewed};
use ruma::{OwnedUserId, UserId, thirdparty::Medium};

use crate::{
    Email, Error, Identity, Language, Page,
    dates::moment,
    page,
    texts::{Ending, Letter, Occasion},
};

/// Path of the page that a mail's link leads to: below `/_matrix`, which every proxy before a homeserver lets through.
pub const RENEW_PATH: &str = "/_matrix/client/unstable/account_validity/renew";

const DAY_MS: u64 = 86_400_000;
/// How often it is looked who is due.
const ROUND: std::time::Duration = std::time::Duration::from_mins(10);
/// Accounts looked for at once.
const PAGE: usize = 100;

/// Why nothing was renewed or mailed.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// As the account stands.
    #[error(transparent)]
    Accounts(#[from] chappe_accounts::Error),
    /// Mail.
    #[error(transparent)]
    Identity(#[from] Error),
}

/// Renewal of accounts: a handle, clones share it.
#[derive(Clone, Debug)]
pub struct Renewals {
    identity: Identity,
    accounts: Accounts,
}

impl Renewals {
    /// Over these.
    pub fn new(identity: Identity, accounts: Accounts) -> Self {
        Self { identity, accounts }
    }

    /// Whether accounts end at all.
    pub fn is_on(&self) -> bool {
        self.accounts.accounts_end()
    }

    /// The language of pages for a client that asks for none.
    pub fn language(&self) -> Language {
        self.identity.language()
    }

    /// Mails a user what renews the account, as often as one address is mailed. [`Error::UnknownAddress`] for accounts without an address.
    pub async fn send_mail(&self, user: &UserId) -> Result<(), RenewalError> {
        let addresses = self.addresses(user).await?;
        if addresses.is_empty() {
            return Err(Error::UnknownAddress.into());
        }
        if !self.identity.sends_mail() {
            return Err(Error::NoMail.into());
        }
        for address in &addresses {
            self.identity.take_address(address)?;
        }
        let reminder = self.accounts.renewal(user).await?;
        Ok(self.mail(&addresses, &reminder).await?)
    }

    async fn addresses(&self, user: &UserId) -> Result<Vec<Email>, chappe_accounts::Error> {
        let bound = self.accounts.threepids(user).await?.into_iter();
        let emails = bound.filter(|bound| bound.medium == Medium::Email);
        Ok(emails.filter_map(|bound| Email::parse(&bound.address).ok()).collect())
    }

    /// Mails every address; fails only where none of them could be, so that one that is gone does not have the others
    /// mailed again and again.
    async fn mail(&self, addresses: &[Email], reminder: &Reminder) -> Result<(), Error> {
        let identity = &self.identity;
        let site = identity.site().public_baseurl.trim_end_matches('/');
        let (link, code) = match &reminder.secret {
            RenewalSecret::Link(token) => (format!("{site}{RENEW_PATH}?token={token}"), String::new()),
            RenewalSecret::Code(code) => (String::new(), code.clone()),
        };
        let left = reminder.ends.saturating_sub(identity.inner.world.now());
        let ending = Ending { date: moment(reminder.ends), days: left.div_ceil(DAY_MS), code };
        let (mut sent, mut failed) = (false, None);
        for to in addresses {
            let written = identity.inner.templates.get().write(&Letter {
                occasion: Occasion::Ending,
                language: identity.language(),
                service: &identity.service_name(),
                to,
                link: &link,
                inviter: "",
                room: "",
                ending: Some(&ending),
            });
            match identity.post(to, written).await {
                Ok(()) => sent = true,
                Err(error) => failed = Some(error),
            }
        }
        failed.filter(|_| !sent).map_or(Ok(()), Err)
    }

    /// The page that says what became of a renewal.
    pub fn page(&self, renewed: Option<Renewed>, language: Language) -> String {
        let date = match renewed {
            Some(Renewed::Until(ends)) => moment(ends),
            _ => String::new(),
        };
        let (name, shown) = match renewed {
            Some(Renewed::Until(_)) => ("account_renewed", Page::Renewed { date: &date }),
            Some(Renewed::Before) => ("account_previously_renewed", Page::RenewedBefore),
            None => ("invalid_token", Page::NotRenewed),
        };
        let service = &self.identity.service_name();
        let written = self.identity.inner.templates.get().page(name, language, service, &date);
        written.unwrap_or_else(|| page(&shown, language, service))
    }

    /// Looks who is due, again and again, until the world stops.
    pub async fn run(&self) {
        let world = &self.identity.inner.world;
        let (mut rounds, mut news) = (world.interval(ROUND), self.accounts.reconfigured());
        loop {
            tokio::select! {
                biased;
                () = world.stopping() => break,
                _ = rounds.tick() => {}
                _ = news.changed() => {}
            }
            if let Err(error) = self.round().await {
                tracing::warn!(%error, "the ends of accounts are looked at again in a while");
            }
        }
    }

    async fn round(&self) -> Result<(), RenewalError> {
        self.accounts.end_enrolment().await?;
        let world = &self.identity.inner.world;
        while self.accounts.enrol_some().await? && !world.is_stopping() {}
        let mut after: Option<(u64, OwnedUserId)> = None;
        loop {
            let page = self.accounts.ends_due(after.as_ref(), PAGE).await?;
            let Some(last) = page.last().cloned() else { return Ok(()) };
            for (_, user) in &page {
                if world.is_stopping() || !self.is_on() {
                    return Ok(());
                }
                if let Err(error) = self.look_at(user).await {
                    tracing::warn!(%user, %error, "the end of an account is not dealt with");
                }
            }
            after = Some(last);
        }
    }

    async fn look_at(&self, user: &UserId) -> Result<(), RenewalError> {
        match self.accounts.look_at_end(user).await? {
            Duty::Done => Ok(()),
            Duty::Closed => {
                tracing::info!(%user, "an account that nobody renewed is closed");
                Ok(())
            }
            Duty::Mail(reminder) => {
                let addresses = self.addresses(user).await?;
                if addresses.is_empty() {
                    tracing::warn!(%user, "an account without an address is about to end");
                }
                let sent = self.mail(&addresses, &reminder).await;
                if sent.is_err() {
                    self.accounts.mail_failed(user, &reminder).await?;
                }
                Ok(sent?)
            }
        }
    }
}
