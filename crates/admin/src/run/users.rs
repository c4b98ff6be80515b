//! `users`: accounts of this server.

use chappe_accounts::{Accounts, Erase, ExternalLink, NewUser, OtherDevices, User, UserFilter};
use chappe_identity::moment;
use ruma::{OwnedUserId, UserId};
use serde_json::{Value, json};

use super::{Answer, Deps};
use crate::{Error, Users, import};

const DAY_MS: u64 = 86_400_000;

pub(super) async fn run(deps: &Deps, verb: Users) -> Result<Answer, Error> {
    match verb {
        Users::List { containing, deactivated, limit, after } => {
            let filter = UserFilter { containing, with_deactivated: deactivated };
            let after = after.map(|user| user_id(&deps.accounts, &user)).transpose()?;
            let users = deps.accounts.users(after.as_deref(), limit.clamp(1, 10_000), &filter).await?;
            let lines = users.iter().map(|(id, user)| format!("{id:50} {}", state(user))).collect();
            Ok(Answer { lines, data: users.iter().map(|(id, user)| data(id, user)).collect() })
        }
        Users::Show { user } => show(deps, &user_id(&deps.accounts, &user)?).await,
        Users::Create { user, password, admin, display_name } => {
            let id = user_id(&deps.accounts, &user)?;
            let (password, drawn) = password_or_drawn(deps, password);
            let new = NewUser {
                localpart: Some(id.localpart().to_owned()),
                admin,
                password: Some(password.clone()),
                displayname: display_name,
                ..NewUser::default()
            };
            let id = deps.accounts.create_user(new).await?;
            Ok(with_password(format!("{id} created"), &id, &password, drawn))
        }
        Users::Import { text, dry_run } => Ok(import::users(&deps.accounts, &text, dry_run).await?.answer()),
        Users::ResetPassword { user, password } => {
            let id = existing(deps, &user).await?;
            let (password, drawn) = password_or_drawn(deps, password);
            deps.accounts.set_password(&id, &password, OtherDevices::LogOutExcept(None)).await?;
            Ok(with_password(
                format!("{id} has a new password and is logged out everywhere"),
                &id,
                &password,
                drawn,
            ))
        }
        Users::LogOut { user } => {
            let id = existing(deps, &user).await?;
            let devices = deps.accounts.log_out_all(&id).await?;
            let said = format!("{id} is logged out everywhere: {} devices", devices.len());
            Ok(Answer::line(said, json!({ "user_id": id, "devices": devices })))
        }
        Users::Deactivate { user, erase } => deactivate(deps, &existing(deps, &user).await?, erase).await,
        Users::Admin { user, revoke } => {
            let id = existing(deps, &user).await?;
            deps.accounts.update_user(&id, move |user| user.admin = !revoke).await?;
            let said = if revoke { "is an ordinary user now" } else { "is an administrator now" };
            Ok(Answer::line(format!("{id} {said}"), json!({ "user_id": id, "admin": !revoke })))
        }
        Users::Unlink { user, issuer, subject } => {
            unlink(deps, &existing(deps, &user).await?, &issuer, subject.as_deref()).await
        }
        Users::Validity { user, days, renew, quiet } => {
            let id = existing(deps, &user).await?;
            let days = days.map(|days| deps.world.now() + u64::from(days) * DAY_MS);
            if renew || days.is_some() {
                deps.accounts.say_end(&id, days, Some(!quiet)).await?;
            } else if quiet {
                return Err(Error::Invalid("--quiet goes with --days or --renew".to_owned()));
            }
            validity(deps, &id).await
        }
        Users::Lock { user } => lock(deps, &user, true).await,
        Users::Unlock { user } => lock(deps, &user, false).await,
    }
}

async fn validity(deps: &Deps, id: &UserId) -> Result<Answer, Error> {
    let validity = deps.accounts.validity(id).await?;
    let said = match validity.ends {
        None => format!("{id} has no end"),
        Some(ends) if validity.over => format!("{id} ended on {}", moment(ends)),
        Some(ends) => format!("{id} ends on {}", moment(ends)),
    };
    let data = json!({
        "user_id": id, "expiration_ts": validity.ends, "expired": validity.over, "mails": validity.mails,
    });
    Ok(Answer::line(said, data))
}

async fn show(deps: &Deps, id: &UserId) -> Result<Answer, Error> {
    let user = deps.accounts.user(id).await?.ok_or_else(|| Error::NotFound(id.to_string()))?;
    let mut lines = vec![format!("{id}: {}", state(&user))];
    let mut shown = data(id, &user);
    let validity = deps.accounts.validity(id).await?;
    lines.extend(validity.ends.map(|ends| format!("ends     {}", moment(ends))));
    shown["expiration_ts"] = json!(validity.ends);
    let addresses = deps.accounts.threepids(id).await?;
    lines.extend(addresses.iter().map(|bound| format!("address  {}", bound.address)));
    shown["addresses"] = addresses.iter().map(|bound| json!(bound.address)).collect();
    let links = deps.accounts.external_links(id).await?;
    lines.extend(
        links.iter().map(|link| format!("login    {} {}", link.account.issuer, link.account.subject)),
    );
    let link = |link: &ExternalLink| json!({ "issuer": link.account.issuer, "subject": link.account.subject, "provider": link.account.provider, "linked": link.linked });
    shown["external_ids"] = links.iter().map(link).collect();
    let devices = deps.accounts.devices(id).await?;
    for device in &devices {
        let name = device.name.as_deref().unwrap_or("-");
        lines.push(format!("device   {} {name}", device.device_id));
    }
    let device = |device: &chappe_accounts::DeviceInfo| json!({ "device_id": device.device_id, "name": device.name, "last_seen": device.last_seen_ms });
    shown["devices"] = devices.iter().map(device).collect();
    let rooms = deps.store.read().user_rooms(id).await?;
    lines.push(format!("rooms    {}", rooms.len()));
    shown["rooms"] = json!(rooms.len());
    Ok(Answer { lines, data: shown })
}

/// Closes the account, then leaves its rooms: here if the server runs, else when it starts.
async fn deactivate(deps: &Deps, id: &UserId, erase: bool) -> Result<Answer, Error> {
    let erase = if erase { Erase::Yes } else { Erase::No };
    deps.accounts.deactivate(id, erase).await?;
    let Some(running) = &deps.running else {
        let line = format!("{id} closed; its rooms are left when the server starts");
        return Ok(Answer::line(line, json!({ "user_id": id })));
    };
    let departure = running.rooms.depart(id).await?;
    let failed: Vec<String> = departure
        .failed
        .iter()
        .map(|(room, error)| format!("{room} not left yet, to be tried again: {error}"))
        .collect();
    let mut lines = vec![format!("{id} closed, {} rooms left", departure.left)];
    lines.extend(failed.iter().cloned());
    Ok(Answer { lines, data: json!({ "user_id": id, "rooms_left": departure.left, "failed": failed }) })
}

async fn unlink(deps: &Deps, id: &UserId, issuer: &str, subject: Option<&str>) -> Result<Answer, Error> {
    let mut links = deps.accounts.external_links(id).await?;
    links.retain(|link| {
        link.account.issuer == issuer && subject.is_none_or(|subject| link.account.subject == subject)
    });
    if links.is_empty() {
        return Err(Error::NotFound(format!("such an account with {issuer}")));
    }
    for link in &links {
        deps.accounts.unlink_external_account(id, &link.account.issuer, &link.account.subject).await?;
    }
    let subjects: Vec<&str> = links.iter().map(|link| link.account.subject.as_str()).collect();
    let said = format!("{id} is entered no more by {} of {issuer}", subjects.join(", "));
    Ok(Answer::line(said, json!({ "user_id": id, "issuer": issuer, "subjects": subjects })))
}

async fn lock(deps: &Deps, user: &str, locked: bool) -> Result<Answer, Error> {
    let id = existing(deps, user).await?;
    deps.accounts.update_user(&id, move |user| user.locked = locked).await?;
    let said = if locked { "locked" } else { "unlocked" };
    Ok(Answer::line(format!("{id} {said}"), json!({ "user_id": id, "locked": locked })))
}

/// `alice`, `@alice` or `@alice:server` of this server.
pub(crate) fn user_id(accounts: &Accounts, user: &str) -> Result<OwnedUserId, Error> {
    let server = accounts.server_name();
    let name = user.strip_prefix('@').unwrap_or(user);
    let whole = if name.contains(':') { format!("@{name}") } else { format!("@{name}:{server}") };
    let id = UserId::parse(&whole).map_err(|_| Error::Invalid(format!("{user:?} is not a user name")))?;
    if id.server_name() == server {
        Ok(id)
    } else {
        Err(Error::Invalid(format!("{id} is not of this server")))
    }
}

pub(super) async fn existing(deps: &Deps, user: &str) -> Result<OwnedUserId, Error> {
    let id = user_id(&deps.accounts, user)?;
    match deps.accounts.user(&id).await? {
        Some(_) => Ok(id),
        None => Err(Error::NotFound(id.to_string())),
    }
}

fn password_or_drawn(deps: &Deps, password: Option<String>) -> (String, bool) {
    match password {
        Some(password) => (password, false),
        None => (deps.accounts.draw_password(), true),
    }
}

fn with_password(said: String, id: &UserId, password: &str, drawn: bool) -> Answer {
    let mut answer = Answer::line(said, json!({ "user_id": id }));
    if drawn {
        answer.lines.push(format!("password: {password}"));
        answer.data["password"] = json!(password);
    }
    answer
}

fn state(user: &User) -> String {
    let words = [
        (user.deactivated.is_some(), "closed"),
        (user.locked, "locked"),
        (user.suspended, "suspended"),
        (user.admin, "administrator"),
    ];
    let said: Vec<&str> = words.iter().filter(|(holds, _)| *holds).map(|(_, word)| *word).collect();
    if said.is_empty() { "active".to_owned() } else { said.join(", ") }
}

fn data(id: &UserId, user: &User) -> Value {
    json!({
        "user_id": id, "kind": user.kind, "created": user.created, "admin": user.admin,
        "locked": user.locked, "suspended": user.suspended, "deactivated": user.deactivated.is_some(),
    })
}
