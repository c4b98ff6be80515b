//! `POST /user_directory/search`: people of this server, and those one shares rooms with.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use chappe_accounts::{Accounts, UserFilter};
use chappe_rooms::Rooms;
use chappe_web::Ruma;
use ruma::{OwnedUserId, UserId, api::client::user_directory::search_users::v3::Request};
use serde_json::{Value, json};

use crate::{error::Result, rates::Limits, requester::Requester};

/// Results at most.
const MOST: usize = 50;
/// Local users looked at for one search at most.
const LOCAL: usize = 20_000;
/// Rooms looked at for one search at most.
const ROOMS: usize = 200;

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(rooms): State<Rooms>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Json<Value>> {
    limits.user("search", requester.user(), |rates| rates.search)?;
    let limit = usize::try_from(u64::from(request.limit)).unwrap_or(MOST).min(MOST);
    let term = Term::new(&request.search_term);
    let mut found = Found::new();
    if !term.is_empty() {
        among_members(&rooms, &requester, &term, &mut found).await?;
        among_locals(&accounts, &term, &mut found, limit).await?;
    }
    found.remove(requester.user());
    let more = found.len() > limit;
    let results: Vec<Value> = found.into_values().take(limit).collect();
    Ok(Json(json!({ "results": results, "limited": more })))
}

type Found = BTreeMap<OwnedUserId, Value>;

/// Words that all have to be found, whatever their case.
struct Term(Vec<String>);

impl Term {
    fn new(text: &str) -> Self {
        Self(text.to_lowercase().split_whitespace().take(10).map(str::to_owned).collect())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn matches(&self, user: &UserId, name: Option<&str>) -> bool {
        let hay = format!("{} {}", user.as_str(), name.unwrap_or_default()).to_lowercase();
        self.0.iter().all(|word| hay.contains(word.as_str()))
    }
}

fn entry(user: &UserId, name: Option<&str>, avatar: Option<&str>) -> Value {
    let mut entry = json!({ "user_id": user });
    if let Some(name) = name {
        entry["display_name"] = name.into();
    }
    if let Some(avatar) = avatar {
        entry["avatar_url"] = avatar.into();
    }
    entry
}

async fn among_members(rooms: &Rooms, requester: &Requester, term: &Term, found: &mut Found) -> Result<()> {
    for room in rooms.joined_rooms(requester.user()).await?.into_iter().take(ROOMS) {
        // One may have left meanwhile.
        let Ok(members) = rooms.joined_members(&requester.actor(), &room).await else { continue };
        for (user, profile) in members {
            let (name, avatar) = (profile.display_name.as_deref(), profile.avatar_url.as_deref());
            if term.matches(&user, name) {
                let shown = entry(&user, name, avatar);
                found.insert(user, shown);
            }
        }
    }
    Ok(())
}

async fn among_locals(accounts: &Accounts, term: &Term, found: &mut Found, limit: usize) -> Result<()> {
    let mut after: Option<OwnedUserId> = None;
    let mut looked_at = 0;
    while looked_at < LOCAL && found.len() <= limit {
        let page = accounts.users(after.as_deref(), 500, &UserFilter::default()).await?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        looked_at += page.len();
        let reader = accounts.read();
        for (user, _) in page {
            let Ok(profile) = accounts.profile(&reader, &user).await else { continue };
            if term.matches(&user, profile.displayname()) {
                let shown = entry(&user, profile.displayname(), profile.avatar_url());
                found.insert(user, shown);
            }
        }
    }
    Ok(())
}
