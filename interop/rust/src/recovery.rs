//! The recovery key, the key backup, and a device that has nothing else.

use anyhow::{Context, Result, ensure};
use matrix_sdk::{
    RoomState,
    encryption::{VerificationState, recovery::RecoveryState},
    reqwest::Url,
    ruma::{EventId, OwnedEventId, RoomId},
};

use crate::{
    person::Person,
    steps::until_true,
    view::{body, open, say, shown, to_the_start},
};

const BEFORE: &str = "dit avant que l'appareil existe";

/// Sets everything up; gives the recovery key.
pub(crate) async fn enable(person: &Person) -> Result<String> {
    let recovery = person.client.encryption().recovery();
    until_true(async || Ok(recovery.state() == RecoveryState::Disabled))
        .await
        .context("recovery is there already")?;
    let key = recovery.enable().wait_for_backups_to_upload().await?;
    until_true(async || Ok(recovery.state() == RecoveryState::Enabled))
        .await
        .context("recovery is not there")?;
    ensure!(person.client.encryption().backups().fetch_exists_on_server().await?, "there is no backup");
    Ok(key)
}

/// Something said by the other whose key is in the backup; gives its id.
pub(crate) async fn backed_up(alice: &Person, bob: &Person, room_id: &RoomId) -> Result<OwnedEventId> {
    let (ours, theirs) = (open(alice, room_id).await?, open(bob, room_id).await?);
    let event_id = say(&theirs, &ours, BEFORE).await?;
    alice.client.encryption().backups().wait_for_steady_state().await?;
    Ok(event_id)
}

/// A new device cannot read what was said before, until it is given the key.
pub(crate) async fn recover(at: &Url, key: &str, room_id: &RoomId, before: &EventId) -> Result<Person> {
    let person = Person::log_in(at).await?;
    person.sees(room_id, |room| room.state() == RoomState::Joined).await?;
    let timeline = open(&person, room_id).await?;
    to_the_start(&timeline).await?;
    shown(&timeline, before, |item| item.content().is_unable_to_decrypt())
        .await
        .context("read without a key")?;
    let encryption = person.client.encryption();
    let recovery = encryption.recovery();
    until_true(async || Ok(recovery.state() == RecoveryState::Incomplete))
        .await
        .context("recovery is not offered")?;
    recovery.recover(key).await?;
    until_true(async || Ok(encryption.verification_state().get() == VerificationState::Verified)).await?;
    shown(&timeline, before, |item| body(item) == Some(BEFORE)).await.context("still not read")?;
    let unread = async || {
        let items = timeline.items().await;
        Ok(items.iter().filter_map(|item| item.as_event()).all(|item| !item.content().is_unable_to_decrypt()))
    };
    until_true(unread).await.context("something stays unread")?;
    Ok(person)
}
