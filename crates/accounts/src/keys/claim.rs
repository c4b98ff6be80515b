//! `/keys/claim`: a one-time key is handed out once, whatever happens at the same time or after.

use std::collections::BTreeMap;

use chappe_store::{
    Direction, Json, LogEntry, Reader, Table, Tx,
    accounts::{Devices, Expiries},
    accounts_keys::{FallbackKeys, KeyHeads, OneTimeKeyOrder, OneTimeKeys, SpentKeys},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use ruma::{
    OneTimeKeyAlgorithm, OwnedDeviceId, OwnedOneTimeKeyId, OwnedUserId, UserId, encryption::OneTimeKey,
    serde::Raw,
};
use serde_json::value::RawValue;

use super::{Claim, ClaimedKeys, form, upload::KeyRow};
use crate::{Accounts, Error, retry::retry, tokens::sha256};

/// Users dealt with at the same time.
const AT_ONCE: usize = 16;
/// Devices whose one-time keys are forgotten in one commit.
const DEVICES_AT_ONCE: usize = 500;
/// How long a key that was handed out is known as such, in milliseconds: a client whose upload was not answered uploads
/// the same keys again.
const REMEMBERED: u64 = 90 * 24 * 3600 * 1000;

type OfDevice = BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>;

impl Accounts {
    /// Hands out one-time keys of local users: the oldest one-time key, or else the fallback key. A one-time key is
    /// never handed out twice. Devices without keys are left out.
    pub async fn claim_keys(&self, claim: &Claim) -> Result<ClaimedKeys, Error> {
        let local: Vec<_> = claim
            .iter()
            .filter(|(user, _)| self.is_local(user))
            .map(|(u, d)| (u.clone(), d.clone()))
            .collect();
        let claims = local.into_iter().map(|(user, devices)| async move {
            let keys = self.claim_of_user(&user, &devices).await?;
            Ok::<_, Error>((user, keys))
        });
        let found: Vec<_> = stream::iter(claims).buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().filter(|(_, devices)| !devices.is_empty()).collect())
    }

    async fn claim_of_user(
        &self,
        user: &UserId,
        devices: &BTreeMap<OwnedDeviceId, OneTimeKeyAlgorithm>,
    ) -> Result<BTreeMap<OwnedDeviceId, OfDevice>, Error> {
        let _turn = self.turn(user).await;
        let until = self.world().now().saturating_add(REMEMBERED);
        retry!({
            let reader = self.store().read();
            let mut tx = Tx::new();
            let mut claimed = BTreeMap::new();
            for (device, algorithm) in devices {
                let key = (user.to_owned(), device.clone());
                let found = draft_claim(&reader, &mut tx, (&key, algorithm.as_str()), until).await?;
                claimed.extend(found.map(|found| (device.clone(), BTreeMap::from([found]))));
            }
            drop(reader);
            if !tx.is_empty() {
                self.store().commit(tx).await?;
            }
            Ok(claimed)
        })
    }

    /// Forgets the one-time keys that are kept: a backup was put back, and which of them were handed out since is not known.
    /// Devices are told that none is left and upload others. Those that are dehydrated cannot, and keep theirs; fallback keys
    /// stay, and count as used: they may be. Meant for a server that serves nobody yet; it may be done twice.
    pub async fn forget_one_time_keys(&self) -> Result<(), Error> {
        let mut from = (String::new(), String::new());
        loop {
            let reader = self.store().read();
            let rows = reader.scan_from::<KeyHeads>(&(), &from, DEVICES_AT_ONCE).await?;
            let Some(((user, device), _)) = rows.last() else { return Ok(()) };
            from = (user.to_string(), format!("{device}\0"));
            let keys: Vec<_> = rows.iter().map(|(key, _)| key.clone()).collect();
            let devices = reader.get_many::<Devices>(&keys).await?;
            drop(reader);
            let mut tx = Tx::new();
            for ((key, Json(mut head)), device) in rows.into_iter().zip(devices) {
                if device.is_some_and(|Json(device)| device.dehydrated) {
                    continue;
                }
                tx.delete_prefix::<OneTimeKeys>(&key).delete_prefix::<OneTimeKeyOrder>(&key);
                for count in head.counts.values_mut() {
                    *count = 0;
                }
                head.unused_fallback.clear();
                head.revision += 1;
                tx.put::<KeyHeads>(&key, &Json(head));
                // Also where none was left: the device may have uploaded some since.
                tx.log(LogEntry::OneTimeKeys { user: key.0, device: key.1 });
            }
            if !tx.is_empty() {
                self.store().commit(tx).await?;
            }
        }
    }
}

/// What is kept of a one-time key that was handed out. A key that comes under an id that another one had is a new one.
pub(super) fn mark(row: &KeyRow, json: &str) -> [u8; 32] {
    let (user, device, algorithm, id) = row;
    let public = form::one_time_public(json).unwrap_or_default();
    sha256(&[user.as_str(), device.as_str(), algorithm, id, &public].join("\0"))
}

async fn draft_claim(
    reader: &Reader<'_>,
    tx: &mut Tx,
    (device, algorithm): (&(OwnedUserId, OwnedDeviceId), &str),
    until: u64,
) -> Result<Option<(OwnedOneTimeKeyId, Raw<OneTimeKey>)>, Error> {
    let Some(Json(old)) = reader.get::<KeyHeads>(device).await? else { return Ok(None) };
    let mut head = old.clone();
    let slot = (device.0.clone(), device.1.clone(), algorithm.to_owned());
    let first = reader.scan::<OneTimeKeyOrder>(&slot, Direction::Forward, 1).await?.into_iter().next();
    let handed_out = if let Some((place, id)) = first {
        let row = (device.0.clone(), device.1.clone(), algorithm.to_owned(), id);
        let key = reader.get::<OneTimeKeys>(&row).await?;
        let key = key.ok_or(chappe_store::Error::Corrupt("one-time key listed but not there"))?;
        tx.delete::<OneTimeKeyOrder>(&place).delete::<OneTimeKeys>(&row);
        if let Some(count) = head.counts.get_mut(algorithm) {
            *count = count.saturating_sub(1);
        }
        let text = String::from_utf8(key).map_err(|_| chappe_store::Error::Corrupt("one-time key"))?;
        let mark = mark(&row, &text);
        tx.put::<SpentKeys>(&mark, &());
        tx.put::<Expiries>(&(until, SpentKeys::INFO.number, mark), &());
        let key = RawValue::from_string(text).map_err(|_| chappe_store::Error::Corrupt("one-time key"))?;
        (row.3, key)
    } else {
        let Some(Json(fallback)) = reader.get::<FallbackKeys>(&slot).await? else { return Ok(None) };
        head.unused_fallback.remove(algorithm);
        (fallback.id, fallback.key)
    };
    if head != old {
        head.revision += 1;
        tx.expect::<KeyHeads>(device, Some(&Json(old))).put::<KeyHeads>(device, &Json(head));
        tx.log(LogEntry::OneTimeKeys { user: device.0.clone(), device: device.1.clone() });
    }
    let id = OwnedOneTimeKeyId::try_from(format!("{algorithm}:{}", handed_out.0))
        .map_err(|_| chappe_store::Error::Corrupt("one-time key id"))?;
    Ok(Some((id, Raw::from_json(handed_out.1))))
}
