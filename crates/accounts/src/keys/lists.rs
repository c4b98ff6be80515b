//! The stream of device list changes: one row for each user, the last.

use chappe_store::{
    LogEntry, Position, Reader, Tx,
    accounts_keys::{DeviceListChanges, DeviceListHeads, SignatureChanges},
};
use ruma::{OwnedUserId, UserId};

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

    /// Users, local and remote, whose devices or keys changed, in order of their last change, from the first one after a
    /// position on: `limit` at most, the next page begins `behind` the last of this one.
    pub async fn device_list_changes(
        &self,
        reader: &Reader<'_>,
        after: Position,
        behind: Option<&DeviceListChange>,
        limit: usize,
    ) -> Result<Vec<DeviceListChange>, Error> {
        let rows = match behind {
            None => reader.scan_from::<DeviceListChanges>(&(), &(after.0 + 1), limit).await?,
            Some(last) => {
                let from = (last.position.0, crate::users::beyond(&last.user));
                reader.scan_from::<DeviceListChanges>(&(), &from, limit).await?
            }
        };
        let change = |((position, user), previous)| DeviceListChange {
            user,
            position: Position(position),
            previous: Position(previous),
        };
        Ok(rows.into_iter().map(change).collect())
    }

    /// Whose master keys a user signed after a position up to another.
    pub async fn signature_changes(
        &self,
        reader: &Reader<'_>,
        signer: &UserId,
        after: Position,
        up_to: Position,
    ) -> Result<Vec<OwnedUserId>, Error> {
        let place = |at: Position| (signer.to_owned(), at.0.saturating_add(1));
        let rows = reader.scan_between::<SignatureChanges>(&place(after), &place(up_to)).await?;
        Ok(rows.into_iter().map(|((_, _, user), ())| user).collect())
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
