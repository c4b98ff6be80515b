//! `GET` and `PUT /v2/users/{userId}`: one account; made if it is not there.

use axum::{Json, extract::State};
use chappe_accounts::{Erase, ExternalAccount, ExternalLink, NewUser, User};
use chappe_web::Arguments;
use http::StatusCode;
use ruma::{OwnedUserId, UserId, thirdparty::Medium};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::list::record;
use crate::api::{
    Administrator, Api, Body, Result,
    v1::{canonical, others},
};

/// The words that an account's type may be.
const TYPES: [&str; 2] = ["bot", "support"];

pub(super) async fn show(
    State(api): State<Api>,
    Arguments(user): Arguments<OwnedUserId>,
) -> Result<Json<Value>> {
    api.account(&user).await?;
    whole(&api, &user).await.map(Json)
}

/// Everything that is known of an account.
async fn whole(api: &Api, user: &UserId) -> Result<Value> {
    let found = api.account(user).await?;
    let profile = api.accounts.profile(&api.accounts.read(), user).await?;
    let addresses = api.accounts.threepids(user).await?;
    let seen = api.accounts.devices(user).await?.into_iter().filter_map(|device| device.last_seen_ms).max();
    let address = |bound: &chappe_accounts::ThreepidInfo| {
        json!({
            "medium": bound.medium, "address": bound.address,
            "validated_at": bound.validated, "added_at": bound.added,
        })
    };
    let mut shown = record(user.as_str(), &found);
    shown["displayname"] = json!(profile.displayname());
    shown["avatar_url"] = json!(profile.avatar_url());
    shown["expiration_ts"] = json!(api.accounts.validity(user).await?.ends);
    shown["last_seen_ts"] = json!(seen);
    shown["threepids"] = addresses.iter().map(address).collect();
    let link = |link: &ExternalLink| json!({ "auth_provider": link.account.issuer, "external_id": link.account.subject });
    shown["external_ids"] = api.accounts.external_links(user).await?.iter().map(link).collect();
    Ok(shown)
}

/// What an account shall be; what is left out stays as it is.
#[derive(Deserialize)]
pub(super) struct Request {
    password: Option<String>,
    logout_devices: Option<bool>,
    displayname: Option<String>,
    avatar_url: Option<String>,
    threepids: Option<Vec<Address>>,
    external_ids: Option<Vec<ExternalId>>,
    admin: Option<bool>,
    deactivated: Option<bool>,
    locked: Option<bool>,
    #[expect(clippy::option_option, reason = "null takes the type away, nothing said leaves it")]
    #[serde(default, deserialize_with = "said")]
    user_type: Option<Option<String>>,
}

#[derive(Deserialize)]
struct Address {
    medium: String,
    address: String,
}

#[derive(Deserialize)]
struct ExternalId {
    /// The issuer URL of an identity provider.
    auth_provider: String,
    external_id: String,
}

/// Tells null from what was left out.
fn said<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

pub(super) async fn set(
    State(api): State<Api>,
    administrator: Administrator,
    Arguments(user): Arguments<OwnedUserId>,
    Body(request): Body<Request>,
) -> Result<(StatusCode, Json<Value>)> {
    let addresses = request.addresses()?;
    request.check(&administrator, &user)?;
    let found = if api.accounts.is_local(&user) { api.accounts.user(&user).await? } else { None };
    let status = if let Some(found) = &found {
        request.change(&api, &user, found).await?;
        StatusCode::OK
    } else {
        request.create(&api, &user).await?;
        StatusCode::CREATED
    };
    request.furnish(&api, &user, addresses).await?;
    if request.deactivated == Some(true) && found.is_none_or(|found| found.deactivated.is_none()) {
        api.accounts.deactivate(&user, Erase::No).await?;
        api.rooms.leave_all(user.clone());
    }
    Ok((status, Json(whole(&api, &user).await?)))
}

impl Request {
    fn addresses(&self) -> Result<Option<Vec<(Medium, String)>>> {
        let Some(addresses) = &self.threepids else { return Ok(None) };
        let parsed = |one: &Address| {
            let medium = Medium::from(one.medium.as_str());
            let address = canonical(&medium, one.address.clone())?;
            Ok::<_, chappe_web::Error>((medium, address))
        };
        Ok(Some(addresses.iter().map(parsed).collect::<Result<_, _>>()?))
    }

    /// Refuses what cannot be done before anything is.
    fn check(&self, administrator: &Administrator, user: &UserId) -> Result<()> {
        let invalid = |said: &'static str| Err(chappe_web::Error::invalid_param(said).into());
        let issuer = |id: &ExternalId| id.auth_provider.starts_with("https://");
        if !self.external_ids.iter().flatten().all(issuer) {
            return invalid("auth_provider is the issuer URL of an identity provider");
        }
        if self.user_type.iter().flatten().any(|word| !TYPES.contains(&word.as_str())) {
            return invalid("Invalid user type");
        }
        if self.deactivated == Some(true) && self.password.is_some() {
            return invalid("A closed account has no password");
        }
        if self.admin == Some(false) || self.deactivated == Some(true) || self.locked == Some(true) {
            administrator.not_oneself(user)?;
        }
        Ok(())
    }

    async fn create(&self, api: &Api, user: &UserId) -> Result<()> {
        if !api.accounts.is_local(user) {
            return Err(chappe_web::Error::invalid_param("Not a user of this server").into());
        }
        let new = NewUser {
            localpart: Some(user.localpart().to_owned()),
            admin: self.admin.unwrap_or(false),
            password: self.password.clone(),
            ..NewUser::default()
        };
        Ok(api.accounts.create_user(new).await.map(drop)?)
    }

    async fn change(&self, api: &Api, user: &UserId, found: &User) -> Result<()> {
        if self.deactivated == Some(false) && found.deactivated.is_some() {
            api.accounts.reactivate(user).await?;
        }
        if let Some(password) = &self.password {
            api.accounts.set_password(user, password, others(self.logout_devices)).await?;
        }
        Ok(())
    }

    /// What is done to a new account as to an old one.
    async fn furnish(
        &self,
        api: &Api,
        user: &OwnedUserId,
        addresses: Option<Vec<(Medium, String)>>,
    ) -> Result<()> {
        if let Some(addresses) = addresses {
            let published = api.service.binds_new_accounts();
            api.accounts.replace_threepids(user, &addresses, published).await?;
            api.service.wake();
        }
        if let Some(ids) = &self.external_ids {
            let account = |id: &ExternalId| ExternalAccount {
                issuer: id.auth_provider.clone(),
                subject: id.external_id.clone(),
                provider: String::new(),
            };
            let wanted: Vec<ExternalAccount> = ids.iter().map(account).collect();
            api.accounts.replace_external_accounts(user, &wanted).await?;
        }
        for (field, value) in [("displayname", &self.displayname), ("avatar_url", &self.avatar_url)] {
            if let Some(value) = value {
                let value = (!value.is_empty()).then(|| Value::from(value.as_str()));
                api.accounts.set_profile_field(user, field, value.as_ref()).await?;
            }
        }
        if self.displayname.is_some() || self.avatar_url.is_some() {
            api.rooms.announce_profile(user.clone());
        }
        let change = |user: &mut User| {
            user.admin = self.admin.unwrap_or(user.admin);
            user.locked = self.locked.unwrap_or(user.locked);
            if let Some(word) = &self.user_type {
                user.user_type.clone_from(word);
            }
        };
        if self.admin.is_some() || self.locked.is_some() || self.user_type.is_some() {
            api.accounts.update_user(user, change).await?;
        }
        Ok(())
    }
}
