//! Logging out, by whoever does it.

use chappe_store::{
    Direction, Json, Reader, Tx,
    accounts::{AccessToken, AccessTokens, DeviceTokens, Devices, RefreshTokens},
    oauth::{BrowserSessions, LogOuts, TokenFamilies},
};
use ruma::{DeviceId, OwnedDeviceId, UserId};

use super::{ACCESS, FAMILY, REFRESH, bump_device};
use crate::{Accounts, Error, retry::retry};

impl Accounts {
    /// Ends a device: its tokens, keys, messages, pushers.
    pub async fn log_out(&self, user: &UserId, device: &DeviceId) -> Result<(), Error> {
        self.delete_devices(user, &[device.to_owned()]).await
    }

    /// Ends all devices of a user, their log-ins in browsers and what was granted in those; gives the devices that were.
    pub async fn log_out_all(&self, user: &UserId) -> Result<Vec<OwnedDeviceId>, Error> {
        retry!({
            let reader = self.store().read();
            let devices = self.device_ids(&reader, user).await?;
            let mut tx = Tx::new();
            self.draft_device_ends(&reader, &mut tx, user, &devices).await?;
            tx.add::<LogOuts>(&user.to_owned(), 1);
            drop(reader);
            self.commit_of(user, tx).await?;
            Ok(devices)
        })
    }

    /// Ends devices as an administrator does: the log-ins of the browsers in which they were granted, with which they could
    /// come back, end too. Where it is not known which those are, or a browser has logged in anew since, all of the user do.
    pub async fn shut_out(&self, user: &UserId, devices: &[OwnedDeviceId]) -> Result<(), Error> {
        retry!({
            let reader = self.store().read();
            let keys: Vec<_> = devices.iter().map(|device| (user.to_owned(), device.clone())).collect();
            let heads = reader.get_many::<Devices>(&keys).await?;
            let mut tx = Tx::new();
            self.draft_device_ends(&reader, &mut tx, user, devices).await?;
            let mut all_known = true;
            for Json(head) in heads.into_iter().flatten() {
                let browser = head.oauth.and_then(|grant| grant.browser);
                all_known &= match browser {
                    Some(browser) => self.draft_browser_end(&reader, &mut tx, &browser).await?,
                    None => false,
                };
            }
            if !all_known {
                tx.add::<LogOuts>(&user.to_owned(), 1);
            }
            drop(reader);
            self.commit_of(user, tx).await?;
            Ok(())
        })
    }

    /// Ends the log-in of a browser; false if it is over.
    async fn draft_browser_end(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        browser: &[u8; 32],
    ) -> Result<bool, Error> {
        let session = reader.get::<BrowserSessions>(browser).await?;
        tx.expect::<BrowserSessions>(browser, session.as_ref()).delete::<BrowserSessions>(browser);
        Ok(session.is_some_and(|Json(session)| session.expires > self.world().now()))
    }

    /// Makes all tokens of a user expire and keeps the devices: their clients log in again softly.
    pub async fn soft_log_out_all(&self, user: &UserId) -> Result<(), Error> {
        retry!({
            let reader = self.store().read();
            let mut tx = Tx::new();
            for device in self.device_ids(&reader, user).await? {
                bump_device(&reader, &mut tx, user, &device).await?;
                let rows = (user.to_owned(), device);
                for (key, kind) in reader.scan::<DeviceTokens>(&rows, Direction::Forward, usize::MAX).await? {
                    if kind == REFRESH {
                        tx.delete::<RefreshTokens>(&key.2).delete::<DeviceTokens>(&key);
                    } else if kind == FAMILY {
                        // A refresh token shown from now on is no old one: it went before its time.
                        tx.delete::<TokenFamilies>(&key.2).delete::<DeviceTokens>(&key);
                    } else if let Some(Json(row)) = reader.get::<AccessTokens>(&key.2).await? {
                        let row = AccessToken { expires: Some(0), replaces: None, ..row };
                        tx.put::<AccessTokens>(&key.2, &Json(row));
                    }
                }
            }
            drop(reader);
            self.commit_of(user, tx).await?;
            Ok(())
        })
    }
}

/// Ends every token of a device.
pub(crate) async fn revoke_device_tokens(
    reader: &Reader<'_>,
    tx: &mut Tx,
    user: &UserId,
    device: &DeviceId,
) -> Result<(), Error> {
    let rows = (user.to_owned(), device.to_owned());
    for (key, kind) in reader.scan::<DeviceTokens>(&rows, Direction::Forward, usize::MAX).await? {
        match kind {
            ACCESS => tx.delete::<AccessTokens>(&key.2),
            FAMILY => tx.delete::<TokenFamilies>(&key.2),
            _ => tx.delete::<RefreshTokens>(&key.2),
        };
        tx.delete::<DeviceTokens>(&key);
    }
    Ok(())
}
