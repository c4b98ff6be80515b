//! What accounts promise, shown on the memory engine in a fake world.

mod data;
mod encryption;
mod erased;
mod external;
mod hung_up;
mod imported;
mod inbox;
mod interactive;
mod one_time;
mod sessions;
mod validity;
mod yielding;

use chappe_kv::{Db, Memory};
use chappe_rules::appservice::Registrations;
use chappe_store::Store;
use chappe_world::{Fake, FakeNet, World};
use ruma::{OwnedDeviceId, OwnedUserId, UserId, owned_server_name};

use crate::{Accounts, AccountsConfig, Issued, LogIn, NewUser, Refreshing};

/// A server with nobody on it, and password hashes that cost nothing.
fn server() -> Accounts {
    server_with(|_| {})
}

pub(crate) fn server_with(change: impl FnOnce(&mut AccountsConfig)) -> Accounts {
    on(&Store::new(Db::new(Memory::default())), change)
}

/// A server process on a store that may have another one.
fn on(store: &Store, change: impl FnOnce(&mut AccountsConfig)) -> Accounts {
    let mut config = AccountsConfig::default();
    config.password.memory_kib = 8;
    config.password.passes = 1;
    change(&mut config);
    let world = World::fake(Fake::new("hs1", 1, &FakeNet::default()));
    Accounts::new(store.clone(), world, owned_server_name!("hs1"), config)
}

/// A server with application services.
pub(crate) fn accounts_with(services: Registrations) -> Accounts {
    let (store, config) = (Store::new(Db::new(Memory::default())), AccountsConfig::default());
    let world = World::fake(Fake::new("hs1", 1, &FakeNet::default()));
    Accounts::with_appservices(store, world, owned_server_name!("hs1"), config, services)
}

async fn user(accounts: &Accounts, name: &str) -> OwnedUserId {
    let new = NewUser {
        localpart: Some(name.to_owned()),
        password: Some(format!("{name}'s password")),
        ..NewUser::default()
    };
    accounts.create_user(new).await.unwrap()
}

async fn log_in(accounts: &Accounts, user: &UserId, device: &str) -> Issued {
    let log_in = LogIn {
        user_id: user.to_owned(),
        device_id: Some(OwnedDeviceId::from(device)),
        device_name: Some(format!("{device} of {user}")),
        refreshing: Refreshing::No,
        by: None,
    };
    accounts.log_in(log_in).await.unwrap()
}

/// Handlers hold these futures across threads: this is checked here once rather than in each of them.
#[test]
fn futures_may_move_between_threads() {
    fn moves<T: Send>(_: T) {}
    let (accounts, user) = (server(), ruma::owned_user_id!("@a:hs1"));
    moves(accounts.create_user(NewUser::default()));
    moves(accounts.update_user(&user, |_| {}));
    moves(accounts.authenticate(""));
    moves(accounts.refresh(""));
    moves(accounts.claim_keys(&crate::Claim::default()));
    moves(accounts.upload_keys(&user, "D".into(), crate::KeyUpload::default()));
    moves(accounts.update_tags(&user, ruma::room_id!("!r:hs1"), |_| {}));
    moves(accounts.enable_push_rule(&user, ruma::push::RuleKind::Room, "", true));
    moves(accounts.flush_seen());
    moves(accounts.delete_to_device(&user, "D".into(), chappe_store::Position(0)));
}
