//! The stream of device list changes: one row for each user, the last.

use chappe_store::{
    LogEntry, Position, Reader, Tx,
    accounts_keys::{DeviceListChanges, DeviceListHeads},
};
use ruma::UserId;

use super::DeviceListChange;
use crate::{Accounts, Error};

impl Accounts {
    /// Says that a user's devices or keys change with this transaction.
    pub(crate) async fn draft_list_change(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        user: &UserId,
    ) -> Result<(), Error> {
        let key = user.to_owned();
        let before = reader.get::<DeviceListHeads>(&key).await?;
        tx.expect::<DeviceListHeads>(&key, before.as_ref()).put_position::<DeviceListHeads>(&key);
        if let Some(before) = before {
            tx.delete::<DeviceListChanges>(&(before, key.clone()));
        }
        tx.put_at_position::<DeviceListChanges>(&(), &key, &before.unwrap_or(0));
        tx.log(LogEntry::DeviceList { user: key });
        Ok(())
    }

    /// Users, local and remote, whose devices or keys changed after a position up to another, in order of their last
    /// change; among them those of whom it cannot be told, as they changed several times.
    pub async fn device_list_changes(
        &self,
        reader: &Reader<'_>,
        after: Position,
        up_to: Position,
        limit: usize,
    ) -> Result<Vec<DeviceListChange>, Error> {
        let rows = reader.scan_from::<DeviceListChanges>(&(), &(after.0 + 1), limit).await?;
        let changes = rows.into_iter().map(|((position, user), previous)| DeviceListChange {
            user,
            position: Position(position),
            previous: Position(previous),
        });
        Ok(changes.filter(|change| change.is_between(after, up_to)).collect())
    }

    /// The last change of one user.
    pub async fn device_list_change(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
    ) -> Result<Option<DeviceListChange>, Error> {
        let user = user.to_owned();
        let Some(position) = reader.get::<DeviceListHeads>(&user).await? else { return Ok(None) };
        let previous = reader.get::<DeviceListChanges>(&(position, user.clone())).await?.unwrap_or(0);
        Ok(Some(DeviceListChange { user, position: Position(position), previous: Position(previous) }))
    }
}
