//! Accounts of another server, with the hashes of their passwords.

use std::collections::HashSet;

use chappe_accounts::{Accounts, NewUser};
use chappe_identity::Email;

use super::{
    Line, Outcome, Report,
    table::{Row, rows},
};
use crate::{Error, run::user_id};

const COLUMNS: [&str; 4] = ["user", "display_name", "email", "password_hash"];

/// Makes the accounts of a file, or only says what would become of them. Accounts that exist stay as they are.
pub(crate) async fn users(accounts: &Accounts, text: &str, dry_run: bool) -> Result<Report, Error> {
    let mut import = Import { accounts, dry_run, seen: HashSet::new() };
    let mut lines = Vec::new();
    for row in rows(text, &COLUMNS)? {
        let done = match new_user(accounts, &row) {
            Ok(new) => import.take(new).await?,
            Err(error) => Err(error),
        };
        lines.push(Line::new(row.line, row.value("user").unwrap_or_default(), done));
    }
    Ok(Report::new(dry_run, lines))
}

struct Import<'a> {
    accounts: &'a Accounts,
    dry_run: bool,
    /// Accounts and addresses that would be there by now.
    seen: HashSet<String>,
}

impl Import<'_> {
    /// What becomes of an account; an error where the server is at fault.
    async fn take(&mut self, new: NewUser) -> Result<Result<Outcome, String>, Error> {
        use chappe_accounts::Error as Refusal;
        let done = if self.dry_run {
            self.look_at(&new).await
        } else {
            self.accounts.create_user(new).await.map(drop)
        };
        match done {
            Ok(()) => Ok(Ok(Outcome::Made)),
            Err(Refusal::UserInUse) => Ok(Ok(Outcome::Known)),
            Err(error @ (Refusal::Store(_) | Refusal::Busy)) => Err(error.into()),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    async fn look_at(&mut self, new: &NewUser) -> Result<(), chappe_accounts::Error> {
        let name = new.localpart.clone().unwrap_or_default();
        if self.seen.contains(&name) {
            return Err(chappe_accounts::Error::UserInUse);
        }
        self.accounts.check_new_user(new).await?;
        if new.email.as_ref().is_some_and(|email| self.seen.contains(email)) {
            return Err(chappe_accounts::Error::ThreepidInUse);
        }
        self.seen.extend(new.email.clone().into_iter().chain([name]));
        Ok(())
    }
}

fn new_user(accounts: &Accounts, row: &Row) -> Result<NewUser, String> {
    let user = user_id(accounts, row.need("user")?).map_err(|error| error.to_string())?;
    let email = row.value("email").map(Email::parse).transpose().map_err(|error| error.to_string())?;
    Ok(NewUser {
        localpart: Some(user.localpart().to_owned()),
        displayname: row.value("display_name").map(str::to_owned),
        email: email.map(|email| email.to_string()),
        password_hash: row.value("password_hash").map(str::to_owned),
        ..NewUser::default()
    })
}
