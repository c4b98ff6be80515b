//! `POST /users/info`: how the accounts of these users stand.

use std::{collections::BTreeSet, sync::Arc};

use axum::{Json, extract::State};
use chappe_accounts::{Accounts, RemoteUsers, UserInfo};
use chappe_rooms::Rooms;
use chappe_web::{Error, Payload};
use ruma::OwnedUserId;
use serde_json::{Map, Value};

use super::infos;
use crate::{error::Result, rates::Limits, requester::Requester};

/// Users of one question at most.
const MOST: usize = 500;

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(rooms): State<Rooms>,
    State(remote): State<Arc<dyn RemoteUsers>>,
    State(limits): State<Limits>,
    requester: Requester,
    Payload(body): Payload<Map<String, Value>>,
) -> Result<Json<std::collections::BTreeMap<OwnedUserId, UserInfo>>> {
    limits.user("search", &requester, |rates| rates.search)?;
    let ids = body.get("user_ids").and_then(Value::as_array);
    let ids = ids.ok_or_else(|| Error::invalid_param("`user_ids` is a list of user ids"))?;
    if ids.len() > MOST {
        return Err(Error::invalid_param(format!("No more than {MOST} users at once")).into());
    }
    // Those of whom there can be no account are left out like those who have none.
    let users: BTreeSet<OwnedUserId> =
        ids.iter().filter_map(|id| OwnedUserId::try_from(id.as_str()?).ok()).collect();
    Ok(Json(infos((&accounts, &rooms), &remote, users).await?))
}
