//! Comparing emoji.

use anyhow::{Context, Result, bail, ensure};
use matrix_sdk::{
    encryption::{
        VerificationState,
        identities::Device,
        verification::{SasVerification, Verification, VerificationRequest, VerificationRequestState},
    },
    reqwest::Url,
};

use crate::{
    person::Person,
    steps::{until, until_true},
};

/// Two people. Through messages to devices too: in a room, the SDK would send its keys after the next idle sync only.
pub(crate) async fn of_users(alice: &Person, bob: &Person) -> Result<()> {
    knows(bob, alice).await?;
    let device = knows(alice, bob).await?;
    compare(device.request_verification().await?, bob, alice).await?;
    for (person, other) in [(alice, bob), (bob, alice)] {
        until_true(async || {
            let identity = person.client.encryption().get_user_identity(&other.user_id()).await?;
            Ok(identity.is_some_and(|identity| identity.is_verified()))
        })
        .await
        .context("the identity is not trusted")?;
    }
    Ok(())
}

/// Two devices of one person. Afterwards the new one has the secrets.
pub(crate) async fn of_devices(first: &Person, at: &Url) -> Result<Person> {
    let second = Person::log_in(at).await?;
    // A request of a device that is not known yet is dropped.
    knows(first, &second).await?;
    let encryption = second.client.encryption();
    let own = encryption.request_user_identity(&second.user_id()).await?.context("no identity")?;
    let request = own.request_verification().await?;
    compare(request, first, &second).await?;
    until_true(async || Ok(encryption.verification_state().get() == VerificationState::Verified)).await?;
    let complete =
        async || Ok(encryption.cross_signing_status().await.is_some_and(|status| status.is_complete()));
    until_true(complete).await.context("the secrets did not come")?;
    Ok(second)
}

/// Waits until one knows the device of another.
async fn knows(person: &Person, other: &Person) -> Result<Device> {
    let device_id = other.client.device_id().context("not logged in")?;
    let encryption = person.client.encryption();
    until(async || Ok(encryption.get_device(&other.user_id(), device_id).await?))
        .await
        .context("the other's device is not known")
}

/// Goes through the flow on both sides.
async fn compare(request: VerificationRequest, accepting: &Person, requesting: &Person) -> Result<()> {
    let (encryption, other) = (accepting.client.encryption(), requesting.user_id());
    let theirs = until(async || Ok(encryption.get_verification_request(&other, request.flow_id()).await))
        .await
        .context("the request did not arrive")?;
    theirs.accept().await?;
    until_true(async || Ok(request.is_ready())).await.context("not accepted")?;
    let ours = request.start_sas().await?.context("not started")?;
    let theirs = until(async || started(&theirs)).await.context("the start did not arrive")?;
    theirs.accept().await?;
    for sas in [&ours, &theirs] {
        until_true(async || good(sas, sas.can_be_presented())).await.context("no keys")?;
    }
    let emoji = |sas: &SasVerification| sas.emoji().map(|seven| seven.map(|emoji| emoji.symbol));
    ensure!(ours.supports_emoji() && emoji(&ours) == emoji(&theirs), "the emoji differ");
    ours.confirm().await?;
    theirs.confirm().await?;
    for sas in [&ours, &theirs] {
        until_true(async || good(sas, sas.is_done())).await.context("not done")?;
    }
    Ok(())
}

/// The flow that the other has started.
fn started(request: &VerificationRequest) -> Result<Option<SasVerification>> {
    match request.state() {
        VerificationRequestState::Transitioned { verification: Verification::SasV1(sas) } => Ok(Some(sas)),
        VerificationRequestState::Cancelled(info) => bail!("cancelled: {}", info.reason()),
        _ => Ok(None),
    }
}

/// `held`, unless the other has given up.
fn good(sas: &SasVerification, held: bool) -> Result<bool> {
    match sas.cancel_info() {
        Some(info) => bail!("cancelled: {}", info.reason()),
        None => Ok(held),
    }
}
