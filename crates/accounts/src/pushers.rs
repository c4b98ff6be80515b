//! Pushers: where to tell a user of events.

use chappe_store::{
    Direction, Json, LogEntry, Reader, Tx,
    accounts::{self, Devices, PusherOwners, Pushers},
};
use ruma::{
    DeviceId, OwnedDeviceId, OwnedUserId, UserId,
    api::client::push::{Pusher, PusherIds, PusherKind},
};

use crate::{Accounts, Error, retry::retry};

/// Bytes of one pusher.
const LONGEST: usize = 16_384;

/// A pusher as stored.
#[derive(Clone, Debug)]
pub struct PusherInfo {
    /// The pusher in the form of the client API, with its ids, kind, names and data.
    pub pusher: serde_json::Value,
    /// Application.
    pub app_id: String,
    /// Push key.
    pub pushkey: String,
    /// The device that set it.
    pub device: Option<OwnedDeviceId>,
    /// Set at, in milliseconds since 1970.
    pub created: u64,
}

/// What becomes of other users' pushers with the same application and push key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherUsers {
    /// They stay (`append: true`).
    Keep,
    /// They end: the device changed hands.
    Replace,
}

impl Accounts {
    /// Sets a pusher. [`Error::Invalid`] gateways and kinds that are not served, [`Error::TooMany`].
    pub async fn set_pusher(
        &self,
        user: &UserId,
        device: Option<&DeviceId>,
        pusher: &Pusher,
        others: OtherUsers,
    ) -> Result<(), Error> {
        let value = check(pusher)?;
        let (app, pushkey) = (pusher.ids.app_id.clone(), pusher.ids.pushkey.clone());
        retry!({
            let reader = self.store().read();
            let mut tx = Tx::new();
            if let Some(device) = device {
                let key = (user.to_owned(), device.to_owned());
                let head = reader.get::<Devices>(&key).await?.ok_or(Error::NotFound("device"))?;
                tx.expect::<Devices>(&key, Some(&head));
            }
            let mine = reader.scan::<Pushers>(&user.to_owned(), Direction::Forward, usize::MAX).await?;
            let known = mine.iter().any(|((_, a, k), _)| *a == app && *k == pushkey);
            if !known && mine.len() >= self.config().limits.pushers {
                return Err(Error::TooMany("pushers"));
            }
            if others == OtherUsers::Replace {
                let owners = (app.clone(), pushkey.clone());
                for (key, ()) in reader.scan::<PusherOwners>(&owners, Direction::Forward, usize::MAX).await? {
                    if key.2 != user {
                        tx.log(LogEntry::Pushers { user: key.2.clone() });
                        tx.delete::<Pushers>(&(key.2.clone(), app.clone(), pushkey.clone()));
                        tx.delete::<PusherOwners>(&key);
                    }
                }
            }
            let row = accounts::Pusher {
                pusher: value.clone(),
                device: device.map(ToOwned::to_owned),
                created: self.world().now(),
            };
            tx.put::<Pushers>(&(user.to_owned(), app.clone(), pushkey.clone()), &Json(row));
            tx.put::<PusherOwners>(&(app.clone(), pushkey.clone(), user.to_owned()), &());
            tx.log(LogEntry::Pushers { user: user.to_owned() });
            drop(reader);
            self.store().commit(tx).await?;
            Ok(())
        })
    }

    /// Removes a pusher; none is fine.
    pub async fn delete_pusher(&self, user: &UserId, ids: &PusherIds) -> Result<(), Error> {
        let mut tx = Tx::new();
        tx.delete::<Pushers>(&(user.to_owned(), ids.app_id.clone(), ids.pushkey.clone()));
        tx.delete::<PusherOwners>(&(ids.app_id.clone(), ids.pushkey.clone(), user.to_owned()));
        tx.log(LogEntry::Pushers { user: user.to_owned() });
        self.store().commit(tx).await?;
        Ok(())
    }

    /// A user's pushers.
    pub async fn pushers(&self, reader: &Reader<'_>, user: &UserId) -> Result<Vec<PusherInfo>, Error> {
        let rows = reader.scan::<Pushers>(&user.to_owned(), Direction::Forward, usize::MAX).await?;
        let info = |((_, app_id, pushkey), Json(row)): ((OwnedUserId, _, _), Json<accounts::Pusher>)| {
            PusherInfo { pusher: row.pusher, app_id, pushkey, device: row.device, created: row.created }
        };
        Ok(rows.into_iter().map(info).collect())
    }

    /// Up to about `limit` users that have pushers, from `after` (excluded), by id.
    pub async fn users_with_pushers(
        &self,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<OwnedUserId>, Error> {
        const PAGE: usize = 500;
        let reader = self.store().read();
        let mut users: Vec<OwnedUserId> = Vec::new();
        let mut from = after.map(crate::users::beyond).unwrap_or_default();
        while users.len() < limit {
            let page = reader.scan_from::<Pushers>(&(), &from, PAGE).await?;
            let Some(((last, ..), _)) = page.last() else { break };
            from = crate::users::beyond(last);
            users.extend(page.into_iter().map(|((user, ..), _)| user));
            users.dedup();
        }
        Ok(users)
    }

    /// Ends those of a user's pushers whose device is `ended`.
    pub(crate) async fn draft_pusher_ends(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        user: &UserId,
        ended: impl Fn(Option<&OwnedDeviceId>) -> bool + Send,
    ) -> Result<(), Error> {
        let rows = reader.scan::<Pushers>(&user.to_owned(), Direction::Forward, usize::MAX).await?;
        for (key, Json(row)) in rows {
            if ended(row.device.as_ref()) {
                tx.delete::<Pushers>(&key);
                tx.log(LogEntry::Pushers { user: user.to_owned() });
                tx.delete::<PusherOwners>(&(key.1, key.2, key.0));
            }
        }
        Ok(())
    }
}

/// The pusher as JSON, if it may be stored.
fn check(pusher: &Pusher) -> Result<serde_json::Value, Error> {
    if pusher.ids.app_id.len() > 64 || pusher.ids.pushkey.len() > 512 {
        return Err(Error::invalid("app_id has at most 64 bytes, pushkey at most 512"));
    }
    let data = match &pusher.kind {
        PusherKind::Http(data) => data,
        PusherKind::Email(_) => return Err(Error::invalid("this server sends no notifications by mail")),
        _ => return Err(Error::invalid("a pusher is of the kind http")),
    };
    let path = data.url.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
    let web = data.url.starts_with("https://") || data.url.starts_with("http://");
    if !web || path != Some("/_matrix/push/v1/notify") {
        return Err(Error::invalid("the gateway must be an HTTP URL with the path /_matrix/push/v1/notify"));
    }
    let value = serde_json::to_value(pusher).map_err(|error| Error::BadJson(error.to_string()))?;
    if value.to_string().len() > LONGEST { Err(Error::TooLarge("pusher")) } else { Ok(value) }
}
