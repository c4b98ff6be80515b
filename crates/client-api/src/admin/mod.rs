//! `/admin/…`: what the client-server API gives server administrators.

mod lock;
mod suspend;
mod whois;

use chappe_accounts::{Accounts, User};
use chappe_web::Routes;
use ruma::{UserId, api::client::admin as api};
use serde_json::Value;

use crate::{Api, error::Result, requester::Requester};

pub(crate) fn routes() -> Routes<Api> {
    Routes::new()
        .on::<api::get_user_info::v3::Request, _>(whois::handler)
        .on::<api::is_user_locked::v1::Request, _>(lock::show)
        .on::<api::lock_user::v1::Request, _>(lock::set)
        .on::<api::is_user_suspended::v1::Request, _>(suspend::show)
        .on::<api::suspend_user::v1::Request, _>(suspend::set)
}

/// A user of this server whose account is open.
async fn open_account(accounts: &Accounts, user: &UserId) -> Result<User> {
    if !accounts.is_local(user) {
        return Err(chappe_web::Error::invalid_param("Not a user of this server").into());
    }
    let found = accounts.user(user).await?.filter(|user| user.deactivated.is_none());
    Ok(found.ok_or_else(|| chappe_web::Error::not_found("No such user"))?)
}

/// A user whom an administrator may lock or suspend: anybody whose account is open, but no other administrator.
async fn moderated(accounts: &Accounts, requester: &Requester, user: &UserId) -> Result<User> {
    requester.must_be_admin()?;
    let found = open_account(accounts, user).await?;
    if found.admin && requester.user() != user {
        return Err(chappe_web::Error::forbidden("This is another administrator").into());
    }
    Ok(found)
}

/// What the audit log says of a change.
fn noted(what: &str, user: &UserId, details: Value) -> (String, Value) {
    (format!("PUT /_matrix/client/v1/admin/{what}/{user}"), details)
}

/// Refuses what administrators must not do to themselves.
fn not_oneself(requester: &UserId, user: &UserId) -> Result<()> {
    if requester == user {
        return Err(chappe_web::Error::forbidden("You cannot do this to yourself").into());
    }
    Ok(())
}
