//! What Element X does, on matrix-rust-sdk: sliding sync, timelines, encryption, media, threads, verification, recovery, OAuth.
//!
//! ```text
//! chappe-interop-rust http://ALICE:PASSWORD@HOST:PORT http://BOB:PASSWORD@HOST:PORT
//! ```
//!
//! The two accounts exist. Exit 0 when every step held, 1 with the step's name otherwise. What the SDK says goes to
//! standard error, as `RUST_LOG` wants it.
#![recursion_limit = "256"]

mod list;
mod media;
mod oauth;
mod person;
mod recovery;
mod steps;
mod talk;
mod threads;
mod verification;
mod view;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use matrix_sdk::reqwest::Url;
use tracing_subscriber::EnvFilter;

use crate::{person::Person, steps::step};

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match story().await {
        Ok(()) => {
            println!("rust: all steps held");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("rust: FAIL {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whose accounts, and on which servers.
fn arguments() -> Result<(Url, Url)> {
    let mut urls = std::env::args().skip(1).map(|text| Url::parse(&text).context(text));
    match (urls.next(), urls.next(), urls.next()) {
        (Some(alice), Some(bob), None) => Ok((alice?, bob?)),
        _ => bail!("whose accounts? give two URLs with user and password"),
    }
}

/// Everything, in order.
async fn story() -> Result<()> {
    let (alice_at, bob_at) = arguments()?;
    let alice = step("log in", Person::log_in(&alice_at)).await?;
    let bob = step("the other logs in", Person::log_in(&bob_at)).await?;
    step("the first sliding sync of an empty account", list::empty(&alice)).await?;
    let secret = step("an encrypted room, invitation, join", talk::meet(&alice, &bob, true)).await?;
    step("room list: windows, order, names", list::order(&alice, &alice_at)).await?;
    let open = step("a room in clear", talk::meet(&alice, &bob, false)).await?;
    step("room list: unread counts", list::unread(&alice, &bob, &open)).await?;
    step("a local echo becomes remote", talk::echo(&alice, &secret)).await?;
    step("encrypted messages both ways", talk::both_ways(&alice, &bob, &secret)).await?;
    step("edit, reaction, reply, redaction", talk::relations(&alice, &bob, &secret)).await?;
    step("typing and receipts", talk::fleeting(&alice, &bob, &secret)).await?;
    step("an encrypted file with a thumbnail", media::encrypted(&alice, &bob, &secret)).await?;
    step("a thumbnail that the server makes", media::avatar(&alice, &bob)).await?;
    step("pagination backwards", talk::pagination(&alice, &alice_at, &bob, &open)).await?;
    step("threads", threads::replies(&alice, &bob, &secret)).await?;
    step("thread subscriptions", threads::subscriptions(&alice, &alice_at, &bob, &open)).await?;
    step("the two verify each other", verification::of_users(&alice, &bob)).await?;
    let second = step("a second device is verified", verification::of_devices(&alice, &alice_at)).await?;
    step("the second device is talked to", talk::both_ways(&second, &bob, &secret)).await?;
    let key = step("recovery and key backup", recovery::enable(&alice)).await?;
    let before = step("a message that is backed up", recovery::backed_up(&alice, &bob, &secret)).await?;
    for device in [alice, second] {
        step("log out", device.log_out()).await?;
    }
    let third = step("a new device recovers", recovery::recover(&alice_at, &key, &secret, &before)).await?;
    step("the new device is talked to", talk::both_ways(&third, &bob, &secret)).await?;
    for device in [third, bob] {
        step("log out", device.log_out()).await?;
    }
    step("OAuth: pages, refresh, account, log out", oauth::whole_way(&alice_at)).await?;
    Ok(())
}
