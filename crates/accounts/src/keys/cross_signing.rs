//! `/keys/device_signing/upload`: a user's master, self-signing and user-signing keys.

use chappe_store::{
    Reader, Tx,
    accounts::Users,
    accounts_keys::{CrossSigningKeys, KeySignatures},
};
use ruma::{OwnedUserId, UserId};

use super::{CrossSigningUpload, Replace, Usage, form, query::read_object};
use crate::{Accounts, Error, retry::retry};

/// An uploaded key, checked.
struct New {
    usage: Usage,
    json: String,
    object: form::Object,
    public: String,
}

impl Accounts {
    /// Whether uploading these cross-signing keys needs user-interactive authentication: it does when the user has a
    /// master key and the upload would change anything (client-server API, v1.11).
    pub async fn cross_signing_needs_auth(
        &self,
        user: &UserId,
        upload: &CrossSigningUpload,
    ) -> Result<bool, Error> {
        let new = checked(user, upload)?;
        let old = stored(&self.store().read(), user).await?;
        changes(&old, &new)
    }

    /// Stores cross-signing keys. The self-signing and user-signing keys must be signed by the master key, uploaded or
    /// there. Those that are there already change nothing. `replace` says whether changing existing keys was authorized: [`Error::Forbidden`] when it was not and
    /// there are some by now. [`Error::Invalid`], [`Error::InvalidSignature`].
    pub async fn upload_cross_signing(
        &self,
        user: &UserId,
        upload: CrossSigningUpload,
        replace: Replace,
    ) -> Result<(), Error> {
        let new = checked(user, &upload)?;
        let _turn = self.turn(user).await;
        retry!({
            let reader = self.store().read();
            let key = user.to_owned();
            let account = reader.get::<Users>(&key).await?.ok_or(Error::NotFound("user"))?;
            let old = stored(&reader, user).await?;
            if replace == Replace::Refused && changes(&old, &new)? {
                return Err(Error::Forbidden("cross-signing keys cannot be replaced without authentication"));
            }
            let Some((master, public)) = master(&old, &new)? else {
                return Err(Error::invalid("no master key"));
            };
            check_signed(user, &public, &new)?;
            if are_there(&old, &new)? {
                return Ok(());
            }
            let mut tx = Tx::new();
            tx.expect::<Users>(&key, Some(&account));
            draft_keys(&mut tx, &key, &old, &new, master)?;
            self.draft_list_change(&reader, &mut tx, user).await?;
            drop(reader);
            self.store().commit(tx).await?;
            Ok(())
        })
    }
}

fn checked(user: &UserId, upload: &CrossSigningUpload) -> Result<Vec<New>, Error> {
    let all = [
        (Usage::Master, &upload.master),
        (Usage::SelfSigning, &upload.self_signing),
        (Usage::UserSigning, &upload.user_signing),
    ];
    let mut new = Vec::new();
    for (usage, key) in all {
        let Some(key) = key else { continue };
        let json = key.json().get().to_owned();
        let (object, public) = form::check_cross_signing(&json, user, usage)?;
        if new.iter().any(|other: &New| other.public == public) {
            return Err(Error::invalid("cross-signing keys are different keys"));
        }
        new.push(New { usage, json, object, public });
    }
    Ok(new)
}

/// The stored keys, by usage.
async fn stored(reader: &Reader<'_>, user: &UserId) -> Result<[Option<Vec<u8>>; 3], Error> {
    let slots = Usage::ALL.map(|usage| (user.to_owned(), usage as u8));
    let mut found = reader.get_many::<CrossSigningKeys>(&slots).await?.into_iter();
    Ok([found.next().flatten(), found.next().flatten(), found.next().flatten()])
}

/// Whether an upload changes keys of a user who has a master key.
fn changes(old: &[Option<Vec<u8>>; 3], new: &[New]) -> Result<bool, Error> {
    if old[0].is_none() {
        return Ok(false);
    }
    for key in new {
        let Some(old) = &old[key.usage as usize] else { return Ok(true) };
        if !form::same_but_signatures(&read_object(old)?, &key.object) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether all keys of an upload are stored, as they were uploaded.
fn are_there(old: &[Option<Vec<u8>>; 3], new: &[New]) -> Result<bool, Error> {
    for key in new {
        let Some(old) = &old[key.usage as usize] else { return Ok(false) };
        if read_object(old)? != key.object {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the master key is another one than before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Master {
    Kept,
    Replaced,
}

/// The master key that will hold.
fn master(old: &[Option<Vec<u8>>; 3], new: &[New]) -> Result<Option<(Master, String)>, Error> {
    let before = match &old[0] {
        Some(old) => form::public_key(&read_object(old)?),
        None => None,
    };
    Ok(match new.iter().find(|key| key.usage == Usage::Master) {
        Some(key) if before.as_ref() != Some(&key.public) => Some((Master::Replaced, key.public.clone())),
        _ => before.map(|public| (Master::Kept, public)),
    })
}

fn check_signed(user: &UserId, master: &str, new: &[New]) -> Result<(), Error> {
    for key in new.iter().filter(|key| key.usage != Usage::Master) {
        let signature = form::signature(&key.object, user, &format!("ed25519:{master}"));
        if !signature.is_some_and(|signature| form::verifies(&key.object, master, signature)) {
            return Err(Error::InvalidSignature("a cross-signing key is not signed by the master key"));
        }
    }
    Ok(())
}

fn draft_keys(
    tx: &mut Tx,
    user: &OwnedUserId,
    old: &[Option<Vec<u8>>; 3],
    new: &[New],
    master: Master,
) -> Result<(), Error> {
    for usage in Usage::ALL {
        let slot = (user.clone(), usage as u8);
        let before = old[usage as usize].as_ref();
        tx.expect::<CrossSigningKeys>(&slot, before);
        let uploaded = new.iter().find(|key| key.usage == usage);
        if let Some(before) = before
            && let Some(public) = form::public_key(&read_object(before)?)
            && (uploaded.is_some_and(|key| key.public != public)
                || (uploaded.is_none() && master == Master::Replaced))
        {
            // What was signed is no more, and nothing signed by another master key can stay.
            tx.delete::<CrossSigningKeys>(&slot);
            tx.delete_prefix::<KeySignatures>(&(user.clone(), user.clone(), public));
        }
        if let Some(key) = uploaded {
            tx.put::<CrossSigningKeys>(&slot, &key.json.as_bytes().to_vec());
        }
    }
    Ok(())
}
