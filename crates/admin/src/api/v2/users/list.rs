//! `GET /v2/users`: accounts, filtered, sorted, page by page.

use axum::{Json, extract::State};
use chappe_accounts::{ListedUser, User, UserKind, UserOrder, UserQuery};
use chappe_web::Parameters;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Api, Dir, Page, Result, page::no_such_order};

/// Which accounts.
#[derive(Default, Deserialize)]
pub(in crate::api) struct Filter {
    user_id: Option<String>,
    name: Option<String>,
    guests: Option<bool>,
    admins: Option<bool>,
    locked: Option<bool>,
}

/// In which order, and without which types.
#[derive(Default, Deserialize)]
#[serde(transparent)]
pub(in crate::api) struct Order(Vec<(String, String)>);

impl Order {
    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn order(&self) -> Result<UserOrder, chappe_web::Error> {
        Ok(match self.all("order_by").next().unwrap_or("name") {
            // Nobody is shadow-banned: all are alike in that.
            "name" | "shadow_banned" => UserOrder::Name,
            "is_guest" => UserOrder::Guest,
            "admin" => UserOrder::Admin,
            "user_type" => UserOrder::Type,
            "deactivated" => UserOrder::Deactivated,
            "displayname" => UserOrder::DisplayName,
            "avatar_url" => UserOrder::Avatar,
            "creation_ts" => UserOrder::Created,
            "last_seen_ts" => UserOrder::LastSeen,
            _ => return Err(no_such_order()),
        })
    }

    fn dir(&self) -> Result<Dir, chappe_web::Error> {
        match self.all("dir").next().unwrap_or("f") {
            "f" => Ok(Dir::Forward),
            "b" => Ok(Dir::Backward),
            _ => Err(chappe_web::Error::invalid_param("dir must be f or b")),
        }
    }
}

impl Filter {
    /// The question to the accounts, whatever is asked of closed ones.
    pub(in crate::api) fn query(self, page: Page, order: &Order) -> Result<UserQuery> {
        Ok(UserQuery {
            user_id: self.user_id,
            name: self.name,
            admins: self.admins,
            guests: self.guests.filter(|shown| !shown),
            locked: (!self.locked.unwrap_or(false)).then_some(false),
            deactivated: None,
            not_types: order.all("not_user_type").map(str::to_owned).collect(),
            order: order.order()?,
            backward: order.dir()?.is_backward(),
            from: page.from(),
            limit: page.limit(),
        })
    }
}

#[derive(Deserialize)]
pub(super) struct Closed {
    deactivated: Option<bool>,
}

/// Closed accounts are left out unless `deactivated` is true.
pub(super) async fn handler(
    State(api): State<Api>,
    Parameters(page): Parameters<Page>,
    Parameters(filter): Parameters<Filter>,
    Parameters(order): Parameters<Order>,
    Parameters(closed): Parameters<Closed>,
) -> Result<Json<Value>> {
    let mut query = filter.query(page, &order)?;
    query.deactivated = (!closed.deactivated.unwrap_or(false)).then_some(false);
    listed(&api, page, &query).await
}

/// The page as Synapse writes it.
pub(in crate::api) async fn listed(api: &Api, page: Page, query: &UserQuery) -> Result<Json<Value>> {
    let found = api.accounts.list_users(query).await?;
    let users: Vec<Value> = found.users.iter().map(shown).collect();
    let mut answer = json!({ "users": users, "total": found.total });
    if let Some(next) = page.next(found.total) {
        answer["next_token"] = next.to_string().into();
    }
    Ok(Json(answer))
}

fn shown(one: &ListedUser) -> Value {
    let ListedUser { user_id, user, displayname, avatar_url, last_seen } = one;
    let mut shown = record(user_id.as_str(), user);
    shown["displayname"] = json!(displayname);
    shown["avatar_url"] = json!(avatar_url);
    shown["last_seen_ts"] = json!(last_seen);
    shown
}

/// What an account's own record says.
pub(super) fn record(id: &str, user: &User) -> Value {
    json!({
        "name": id,
        "is_guest": user.kind == UserKind::Guest,
        "admin": user.admin,
        "user_type": user.user_type,
        "deactivated": user.deactivated.is_some(),
        "erased": user.deactivated.as_ref().is_some_and(|closed| closed.erase),
        "shadow_banned": false,
        "locked": user.locked,
        "suspended": user.suspended,
        "creation_ts": user.created,
        "appservice_id": user.appservice,
        "approved": true,
    })
}
