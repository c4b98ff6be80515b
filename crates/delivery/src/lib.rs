//! From the log to local devices: wake-ups, the sync delta, unread counts, typing, presence.
//!
//! What costs nothing must stay free: a message touches the *attached* users of its room only, those who synced within
//! the last minutes; deciding that there is nothing new for a user reads no storage; and nobody's unread counts are
//! worked out before one of their devices asks.

mod config;
mod error;
mod notifications;
mod peek;
mod presence;
mod push;
mod signal;
mod sync;
mod tail;
mod token;
mod typing;
mod unread;
mod wake;

#[cfg(test)]
mod tests;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use chappe_accounts::Accounts;
use chappe_rooms::Rooms;
use chappe_rules::push::without_user;
use chappe_store::{Reader, Store};
use chappe_world::{Live, World};
use ruma::UserId;

pub use self::{
    config::Config,
    error::Error,
    notifications::{Notification, Notifications, NotificationsRequest},
    peek::Peeked,
    presence::{Presence, PresenceChange, PresenceState},
    sync::{
        Delta, DeviceLists, E2ee, Extensions, ExtensionsAsk, Hero, JoinedRoom, Json, LeftRoom, List,
        ListFilters, Pattern, RoomAsk, RoomPart, Scope, SlidingAnswer, SlidingRequest, SlidingRoom,
        StatePart, StickyAsk, StickyPage, Summary, SyncRequest, Timeline, ToDevice, ToDeviceAsk, WantedState,
        state_key,
    },
    token::{Received, SyncToken},
    typing::{Typing, TypingChange},
    unread::Unread,
};

/// What [`Delivery`] is built from.
pub struct Deps {
    /// The store.
    pub store: Store,
    /// Time, randomness, tasks.
    pub world: World,
    /// Users and devices.
    pub accounts: Accounts,
    /// Rooms.
    pub rooms: Rooms,
}

/// What local devices have not seen yet: a handle, clones share it.
#[derive(Clone)]
pub struct Delivery(Arc<Inner>);

struct Inner {
    store: Store,
    world: World,
    accounts: Accounts,
    rooms: Rooms,
    config: Live<Config>,
    wake: Arc<wake::Wake>,
    typing: Arc<Typing>,
    presence: Arc<Presence>,
    unread: unread::Memo,
    tails: tail::Tails,
    members_sent: sync::MembersSent,
    handed_out: sync::HandedOut,
    connections: sync::Connections,
    room_traits: sync::RoomTraits,
    recent_settings: signal::RecentSettings,
    shared_rules: signal::SharedRules,
    shared_settings: signal::SharedSettings,
}

impl Delivery {
    /// Starts following the log.
    pub fn new(deps: Deps, config: Config) -> Self {
        let Deps { store, world, accounts, rooms } = deps;
        let config = Live::new(config);
        let epoch = world.random() & 0xffff_ffff;
        let wake = Arc::new(wake::Wake::new(store.clone(), world.clone(), *store.visible().borrow()));
        let typing = Arc::new(Typing::new(wake.clone(), world.clone(), epoch));
        let presence = Arc::new(Presence::new(wake.clone(), store.clone(), world.clone(), config.clone()));
        wake.follow();
        wake.tell_crowds();
        typing.expire();
        presence.expire();
        presence.tell_gathered();
        presence.repeat();
        let delivery = Self(Arc::new(Inner {
            store,
            world,
            accounts,
            rooms,
            config,
            wake,
            typing,
            presence,
            unread: unread::Memo::default(),
            tails: tail::Tails::default(),
            members_sent: sync::MembersSent::default(),
            handed_out: sync::HandedOut::default(),
            connections: sync::Connections::default(),
            room_traits: sync::RoomTraits::default(),
            recent_settings: signal::RecentSettings::default(),
            shared_rules: signal::SharedRules::default(),
            shared_settings: signal::SharedSettings::default(),
        }));
        push::follow(delivery.clone());
        delivery
    }

    /// Goes on with another section.
    pub fn reconfigure(&self, config: Config) {
        self.0.config.set(config);
    }

    /// What a user has set that bears on everything they are told: kept once for all who have set the same.
    async fn settings(&self, reader: &Reader<'_>, user: &UserId) -> Result<Arc<signal::Settings>, Error> {
        let ignored = self.0.accounts.ignored_users(reader, user).await?;
        let rules = without_user(self.0.accounts.push_rules(reader, user).await?, user);
        let invites = self.0.accounts.invite_filter(reader, user).await?;
        let mut hasher = DefaultHasher::new();
        (serde_json::to_string(&rules).unwrap_or_default(), &ignored, &invites).hash(&mut hasher);
        let (mark, shared) = (hasher.finish(), &self.0.shared_rules);
        let settings = || signal::Settings { ignored, invites, rules: shared.active(rules), mark };
        Ok(self.0.shared_settings.of(mark, settings))
    }

    /// Who is typing where.
    pub fn typing(&self) -> &Typing {
        &self.0.typing
    }

    /// Who is there.
    pub fn presence(&self) -> &Presence {
        &self.0.presence
    }

    /// How many users are attached: have synced within the last minutes.
    pub fn attached(&self) -> usize {
        self.0.wake.attached()
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Delivery to {} users", self.attached())
    }
}
