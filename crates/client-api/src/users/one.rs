//! `GET /user/{userId}/info`: how one account stands.

use std::{collections::BTreeSet, sync::Arc};

use axum::{Json, extract::State};
use chappe_accounts::{Accounts, RemoteUsers, UserInfo};
use chappe_rooms::Rooms;
use chappe_web::{Arguments, Error};
use ruma::OwnedUserId;

use super::infos;
use crate::{error::Result, rates::Limits, requester::Requester};

pub(super) async fn handler(
    State(accounts): State<Accounts>,
    State(rooms): State<Rooms>,
    State(remote): State<Arc<dyn RemoteUsers>>,
    State(limits): State<Limits>,
    requester: Requester,
    Arguments((user,)): Arguments<(OwnedUserId,)>,
) -> Result<Json<UserInfo>> {
    limits.user("search", &requester, |rates| rates.search)?;
    let infos = infos((&accounts, &rooms), &remote, BTreeSet::from([user.clone()])).await?;
    let info = infos.get(&user).copied();
    Ok(Json(info.ok_or_else(|| Error::not_found("No such user, or the server did not say"))?))
}
