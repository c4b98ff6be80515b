//! `POST /user_directory/search`: people one meets in rooms and, if so configured, all of this server.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};
use chappe_accounts::{Accounts, UserFilter};
use chappe_rooms::{Profile, Rooms};
use chappe_web::Ruma;
use ruma::{OwnedUserId, UserId, api::client::user_directory::search_users::v3::Request};
use serde_json::{Value, json};

use crate::{Config, UserDirectory, error::Result, rates::Limits, requester::Requester};

/// Results at most.
const MOST: usize = 50;
/// Local users looked at for one search at most.
const LOCAL: usize = 20_000;

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(rooms): State<Rooms>,
    State(config): State<Arc<Config>>,
    State(limits): State<Limits>,
    requester: Requester,
    Ruma(request): Ruma<Request>,
) -> Result<Json<Value>> {
    limits.user("search", &requester, |rates| rates.search)?;
    let limit = usize::try_from(u64::from(request.limit)).unwrap_or(MOST).min(MOST);
    let term = Term::new(&request.search_term);
    let mut found = Found::new();
    if !term.is_empty() {
        among_people(&accounts, rooms.people_around(requester.user()).await?, &term, &mut found).await;
        if config.user_directory == UserDirectory::Everybody {
            among_locals(&accounts, &term, &mut found, limit).await?;
        }
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

async fn among_people(
    accounts: &Accounts,
    people: BTreeMap<OwnedUserId, Option<Profile>>,
    term: &Term,
    found: &mut Found,
) {
    let reader = accounts.read();
    for (user, elsewhere) in people {
        let (name, avatar) = match elsewhere {
            Some(profile) => (profile.display_name, profile.avatar_url),
            None => match accounts.profile(&reader, &user).await {
                Ok(own) => (own.displayname().map(str::to_owned), own.avatar_url().map(str::to_owned)),
                Err(_) => (None, None),
            },
        };
        if term.matches(&user, name.as_deref()) {
            let shown = entry(&user, name.as_deref(), avatar.as_deref());
            found.insert(user, shown);
        }
    }
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
