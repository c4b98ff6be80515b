//! Push: follows the log for the users who have pushers, and for nobody else.

mod badge;
mod gateway;
mod listeners;

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
    time::Duration,
};

use chappe_rooms::{Event, View};
use chappe_rules::{
    Pdu,
    push::{Attention, Setting, Subject, evaluate},
    version,
};
use chappe_store::{
    Entry, EventNum, LogEntry, Membership, Position, Reader, RoomNid, following,
    unread::{UnreadRooms, UnreadRoomsOf},
};
use futures_util::future::try_join_all;
use ruma::{OwnedUserId, RoomId, RoomVersionId, UserId, events::TimelineEventType};
use tokio::sync::OnceCell;

use self::{
    gateway::{Gateway, Notification, Told},
    listeners::{Listener, Listeners},
};
use crate::{
    Delivery, Error,
    signal::Settings,
    tail::Tail,
    unread::{Reading, is_answer},
};

/// The follower's name among the cursors.
const CURSOR: &str = "push";
/// Log entries taken at once.
const BATCH: usize = 500;
/// Users with pushers loaded at once.
const PAGE: usize = 500;
/// Listeners who are loaded, or for whom an event is judged, at the same time.
const AT_ONCE: usize = 16;
/// How often the cursor is written; what comes after it is pushed again after a crash.
const SAVE: Duration = Duration::from_secs(10);

/// Starts the follower; it ends with the world.
pub(crate) fn follow(delivery: Delivery) {
    let world = delivery.0.world.clone();
    drop(world.spawn("delivery-push", following(keep_up(delivery))));
}

async fn keep_up(delivery: Delivery) {
    let world = delivery.0.world.clone();
    let mut visible = delivery.0.store.visible();
    let mut push = Push::new(delivery);
    let mut save = world.interval(SAVE);
    loop {
        while let Err(error) = push.catch_up().await {
            if world.is_stopping() {
                break;
            }
            tracing::error!(%error, "pushing does not get on, trying again");
            tokio::select! {
                () = world.stopping() => break,
                () = world.sleep(Duration::from_secs(1)) => {}
            }
        }
        tokio::select! {
            () = world.stopping() => return push.save().await,
            _ = save.tick() => push.save().await,
            changed = visible.changed() => if changed.is_err() { return },
        }
    }
}

struct Push {
    delivery: Delivery,
    gateway: Gateway,
    listeners: Listeners,
    /// Dealt with so far; unknown before the first round.
    cursor: Option<Position>,
    saved: Option<Position>,
    /// Whose rooms with something unread are others than those on disk.
    changed: BTreeSet<OwnedUserId>,
    /// The last commit when this process began.
    born: Position,
}

/// An event to be judged for its listeners.
struct Heard<'a> {
    pdu: &'a Pdu,
    subject: Subject,
    /// Where; none if this server is not in the room.
    place: Option<(View<'a>, Arc<Tail>)>,
    /// The event as it stands there.
    event: Option<&'a Event>,
    /// Whether whoever came in after it may see it all the same.
    for_newcomers: OnceCell<bool>,
    told: OnceCell<Arc<Told>>,
}

impl<'a> Heard<'a> {
    fn new(pdu: &'a Pdu) -> Self {
        let (for_newcomers, told) = (OnceCell::new(), OnceCell::new());
        Self { pdu, subject: Subject::new(pdu), place: None, event: None, for_newcomers, told }
    }

    fn in_room(event: &'a Event, view: View<'a>, tail: Arc<Tail>) -> Self {
        Self { place: Some((view, tail)), event: Some(event), ..Self::new(&event.pdu) }
    }

    /// Whether somebody who is in the room now may see the event.
    async fn may_see(&self, user: &UserId) -> Result<bool, Error> {
        let (Some((view, _)), Some(event)) = (&self.place, self.event) else { return Ok(true) };
        let sees = async {
            let for_newcomers = self.for_newcomers.get_or_try_init(|| view.is_for_newcomers(event)).await?;
            Ok(*for_newcomers || view.member_sees(user, event).await?)
        };
        match sees.await {
            // The room is being purged.
            Err(chappe_rooms::Error::NotFound(_)) => Ok(false),
            sees => Ok(sees?),
        }
    }
}

/// What an event is for a listener.
struct Judged {
    user: OwnedUserId,
    settings: Arc<Settings>,
    /// Which rooms have something unread, and what is pushed to those who may hear of it, if it draws attention.
    news: Option<(UnreadRooms, Option<Notification>)>,
}

impl Push {
    fn new(delivery: Delivery) -> Self {
        let gateway = Gateway::new(&delivery);
        let (listeners, changed) = (Listeners::default(), BTreeSet::new());
        let born = delivery.0.wake.born();
        Self { delivery, gateway, listeners, cursor: None, saved: None, changed, born }
    }

    /// Loads who listens; in which rooms is read when something happens there.
    async fn begin(&mut self) -> Result<Position, Error> {
        let delivery = self.delivery.clone();
        let reader = delivery.0.store.read();
        let mut after: Option<OwnedUserId> = None;
        loop {
            let users = delivery.0.accounts.users_with_pushers(after.as_deref(), PAGE).await?;
            let Some(last) = users.last().cloned() else { break };
            let mut unread = reader.get_many::<UnreadRoomsOf>(&users).await?.into_iter();
            for some in users.chunks(AT_ONCE) {
                let accounts = &delivery.0.accounts;
                let loading: Vec<_> = some.iter().map(|user| accounts.pushers(&reader, user)).collect();
                for (user, pushers) in some.iter().zip(try_join_all(loading).await?) {
                    let unread = unread.next().flatten();
                    if !pushers.is_empty() {
                        self.listeners.add(user, pushers.into_iter().map(Arc::new).collect(), unread);
                    }
                }
            }
            after = Some(last);
        }
        let known = reader.get::<chappe_store::Cursors>(&CURSOR.to_owned()).await?;
        self.saved = known.map(Position);
        Ok(self.saved.unwrap_or(self.born))
    }

    async fn catch_up(&mut self) -> Result<(), Error> {
        let mut cursor = match self.cursor {
            Some(cursor) => cursor,
            None => self.begin().await?,
        };
        self.cursor = Some(cursor);
        let delivery = self.delivery.clone();
        if self.listeners.is_empty() {
            // Nobody listens: what the other follower saw is enough to know that.
            let now = *delivery.0.store.visible().borrow();
            delivery.0.wake.reach(now).await?;
            if cursor >= delivery.0.wake.born() && !delivery.0.wake.pushers_changed(cursor) {
                self.cursor = Some(cursor.max(now));
                return Ok(());
            }
        }
        loop {
            let reader = delivery.0.store.read();
            delivery.0.wake.reach(reader.position()).await?;
            let entries = reader.log_after(cursor, BATCH).await?;
            if entries.is_empty() {
                return Ok(());
            }
            for entry in entries {
                let at = entry.position;
                if at != cursor {
                    // If this fails, what came before it is not pushed again.
                    self.cursor = Some(cursor);
                }
                self.handle(&reader, entry).await?;
                cursor = at;
            }
            self.cursor = Some(cursor);
        }
    }

    /// Loads a user's pushers, or forgets the user if there are none.
    async fn load(&mut self, reader: &Reader<'_>, user: &UserId, at: Position) -> Result<(), Error> {
        let pushers = self.delivery.0.accounts.pushers(reader, user).await?;
        if pushers.is_empty() {
            // What comes from now on is not counted.
            self.changed.insert(user.to_owned());
            let rooms = reader.user_rooms_and_forgotten(user).await?;
            self.listeners.remove(user, rooms.into_iter().map(|(nid, _)| nid));
            return Ok(());
        }
        let pushers = pushers.into_iter().map(Arc::new).collect();
        if let Some(listener) = self.listeners.get_mut(user) {
            listener.pushers = pushers;
            return Ok(());
        }
        let rooms = reader.user_rooms(user).await?;
        self.listeners.add(user, pushers, None);
        for (nid, own) in rooms.into_iter().filter(|(_, own)| own.value.membership == Membership::Join) {
            if own.position > at {
                // They may come in only later: who listens there is read anew.
                self.listeners.forget(nid);
            } else {
                self.listeners.enter(nid, user);
            }
        }
        Ok(())
    }

    async fn handle(&mut self, reader: &Reader<'_>, entry: Entry) -> Result<(), Error> {
        let at = entry.position;
        match entry.what {
            LogEntry::Pushers { user } => self.load(reader, &user, at).await,
            LogEntry::AccountData { user } => {
                if let Some(listener) = self.listeners.get_mut(&user) {
                    listener.settings = Weak::new();
                }
                Ok(())
            }
            LogEntry::Event { room, event, member, .. } => {
                self.event(reader, RoomNid(room), (EventNum(event), at), member).await
            }
            LogEntry::Member { room, user } => self.reread(reader, RoomNid(room), &user).await,
            LogEntry::Members { room } | LogEntry::Whole { room, .. } => {
                // Who is in it is read anew; whoever is no longer has nothing unread there.
                self.listeners.forget(RoomNid(room));
                for user in self.listeners.with_unread(RoomNid(room)) {
                    self.reread(reader, RoomNid(room), &user).await?;
                }
                Ok(())
            }
            LogEntry::Purged { room, .. } => {
                self.doubt(RoomNid(room));
                Ok(())
            }
            LogEntry::ThreadSubscription { user } => {
                self.doubt_all(&user);
                Ok(())
            }
            LogEntry::Receipt { room, user, .. } if self.listeners.has(&user) => {
                self.read(reader, RoomNid(room), &user).await
            }
            LogEntry::OutOfBandMembership { user, room } if self.listeners.has(&user) => {
                self.invited(reader, &user, &room).await
            }
            _ => Ok(()),
        }
    }

    /// Reads again whether a user who listens is in a room.
    async fn reread(&mut self, reader: &Reader<'_>, nid: RoomNid, user: &UserId) -> Result<(), Error> {
        if !self.listeners.has(user) {
            return Ok(());
        }
        let now = reader.user_room(user, nid).await?;
        if now.is_some_and(|now| now.value.membership == Membership::Join) {
            self.listeners.enter(nid, user);
            return Ok(());
        }
        self.listeners.leave(nid, user);
        let Some(listener) = self.listeners.get_mut(user) else { return Ok(()) };
        listener.told = listener.shown();
        let left = listener.unread.as_mut();
        let left = left.and_then(|unread| unread.rooms.remove(&nid).then_some(unread.rooms.len()));
        if let Some(now) = left {
            self.changed.insert(user.to_owned());
            self.correct(user, now).await?;
        }
        Ok(())
    }

    /// Has a smaller number shown.
    async fn correct(&mut self, user: &UserId, now: usize) -> Result<(), Error> {
        if self.may_hear(user).await?
            && let Some(listener) = self.listeners.get_mut(user).filter(|one| one.shown() != Some(now))
        {
            listener.told = Some(now);
            self.gateway.send(user, &listener.pushers, Notification::badge(now));
        }
        Ok(())
    }

    /// Something in a room may be unread no more.
    fn doubt(&mut self, nid: RoomNid) {
        let is_known = self.listeners.knows(nid);
        let users = if is_known { self.listeners.in_room(nid) } else { self.listeners.with_unread(nid) };
        for user in users {
            let listener = self.listeners.get_mut(&user).filter(|listener| listener.is_unread(nid));
            if listener.is_some_and(|listener| listener.doubtful.insert(nid)) {
                self.changed.insert(user);
            }
        }
    }

    /// Anything may be unread no more for a user, who follows other threads than before.
    fn doubt_all(&mut self, user: &UserId) {
        let Some(listener) = self.listeners.get_mut(user) else { return };
        if let Some(unread) = listener.unread.as_ref().filter(|unread| !unread.rooms.is_empty()) {
            listener.doubtful.extend(&unread.rooms);
            self.changed.insert(user.to_owned());
        }
    }

    async fn event(
        &mut self,
        reader: &Reader<'_>,
        nid: RoomNid,
        (num, at): (EventNum, Position),
        member: Option<OwnedUserId>,
    ) -> Result<(), Error> {
        let mut users = self.listening(reader, nid, (num, at)).await?;
        if let Some(member) = member.filter(|member| self.listeners.has(member)) {
            self.reread(reader, nid, &member).await?;
            if !users.contains(&member) {
                users.push(member);
            }
        }
        if users.is_empty() {
            return Ok(());
        }
        let delivery = self.delivery.clone();
        let view = delivery.0.rooms.view_at(reader.clone(), nid).await?;
        let event = match view.load_one(num).await {
            // It was purged meanwhile.
            Err(chappe_rooms::Error::NotFound(_)) => return Ok(()),
            event => event?,
        };
        if event.is_redacted() || !view.tells(&event).await? {
            return Ok(());
        }
        if *event.pdu.kind() == TimelineEventType::RoomRedaction {
            self.doubt(nid);
        }
        let tail = delivery.tail(reader, nid).await?;
        let heard = Heard::in_room(&event, view, tail);
        for some in users.chunks(AT_ONCE) {
            self.tell(reader, some, &heard).await?;
        }
        let sender = event.pdu.sender();
        if is_answer(&event, sender) && self.is_unread(sender, nid) {
            self.read(reader, nid, sender).await?;
        }
        Ok(())
    }

    /// An invite to a room elsewhere.
    async fn invited(&mut self, reader: &Reader<'_>, user: &UserId, room: &RoomId) -> Result<(), Error> {
        let Some(at) = reader.out_of_band(user, room).await? else { return Ok(()) };
        let what = at.value.0;
        let known = what.version.as_deref().and_then(|version| RoomVersionId::try_from(version).ok());
        let rules = version::rules(&known.unwrap_or(RoomVersionId::V11));
        let id = ruma::OwnedEventId::try_from(what.event_id.as_str()).ok();
        let pdu = rules.zip(id).and_then(|(rules, id)| Pdu::restore(rules, id, what.event.get()).ok());
        if let Some(pdu) = pdu.filter(|_| what.kind() == Some(Membership::Invite)) {
            self.tell(reader, &[user.to_owned()], &Heard::new(&pdu)).await?;
        }
        Ok(())
    }

    /// Whoever has read on, or answered, gets a smaller number shown.
    async fn read(&mut self, reader: &Reader<'_>, nid: RoomNid, user: &UserId) -> Result<(), Error> {
        let before = self.listeners.get(user).and_then(Listener::shown);
        let settings = self.settings(reader, user).await?;
        let unread = self.unread(reader, user, &settings, Some(nid)).await?;
        let now = unread.rooms.len();
        let tells = before != Some(now) && self.may_hear(user).await?;
        let news = tells.then(|| Notification::badge(now));
        self.note(user, &settings, Some((unread, news)));
        Ok(())
    }

    /// Whether a user's account is open, not locked, and has not ended.
    async fn may_hear(&self, user: &UserId) -> Result<bool, Error> {
        match self.delivery.0.accounts.standing(user).await {
            Err(chappe_accounts::Error::Store(error)) => Err(error.into()),
            standing => Ok(standing.is_ok()),
        }
    }

    /// A listener's settings, read again only after account data changed or when they were not needed for long.
    async fn settings(&self, reader: &Reader<'_>, user: &UserId) -> Result<Arc<Settings>, Error> {
        if let Some(settings) = self.listeners.get(user).and_then(|listener| listener.settings.upgrade()) {
            return Ok(settings);
        }
        let settings = self.delivery.settings(reader, user).await?;
        self.delivery.0.recent_settings.keep(user, settings.clone());
        Ok(settings)
    }

    /// Judges an event for some listeners, all at the same time, and pushes it to whom it concerns.
    async fn tell(
        &mut self,
        reader: &Reader<'_>,
        users: &[OwnedUserId],
        heard: &Heard<'_>,
    ) -> Result<(), Error> {
        let judging: Vec<_> = users.iter().map(|user| self.judge(reader, user, heard)).collect();
        for Judged { user, settings, news } in try_join_all(judging).await? {
            self.note(&user, &settings, news);
        }
        Ok(())
    }

    async fn judge(&self, reader: &Reader<'_>, user: &UserId, heard: &Heard<'_>) -> Result<Judged, Error> {
        let settings = self.settings(reader, user).await?;
        let news = self.news(reader, user, &settings, heard).await?;
        Ok(Judged { user: user.to_owned(), settings, news })
    }

    async fn news(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
        settings: &Settings,
        heard: &Heard<'_>,
    ) -> Result<Option<(UnreadRooms, Option<Notification>)>, Error> {
        let invites = heard.pdu.state_key() == Some(user.as_str());
        let sender = heard.pdu.sender();
        if settings.ignored.contains(sender) || (invites && settings.invites.hides(sender)) {
            return Ok(None);
        }
        let attention = attention(user, settings, heard).await?;
        if !attention.notify || !(invites || heard.may_see(user).await?) {
            return Ok(None);
        }
        let view = heard.place.as_ref().map(|(view, _)| view);
        let changed = view.map(|view| view.nid).filter(|nid| !self.is_unread(user, *nid));
        let unread = self.unread(reader, user, settings, changed).await?;
        if !self.may_hear(user).await? {
            return Ok(Some((unread, None)));
        }
        let told =
            heard.told.get_or_try_init(async || Told::new(heard.pdu, view).await.map(Arc::new)).await?;
        let notification = Notification::event(told, user, &attention, unread.rooms.len());
        Ok(Some((unread, Some(notification))))
    }
}

async fn attention(user: &UserId, settings: &Settings, heard: &Heard<'_>) -> Result<Attention, Error> {
    let mut setting = Setting {
        room_id: heard.pdu.room_id(),
        joined: 0,
        power: None,
        user,
        display_name: "",
        follows: None,
    };
    let Some((view, tail)) = &heard.place else {
        return Ok(evaluate(&settings.rules, &heard.subject, &setting));
    };
    let reading = Reading { user, view, tail, settings, signal: None };
    let display_name = crate::unread::display_name(&reading).await?;
    setting.follows = crate::unread::follows(&reading, heard.pdu).await?;
    setting.joined = view.head.joined.into();
    setting.power = tail.power(view).await?;
    setting.display_name = &display_name;
    Ok(evaluate(&settings.rules, &heard.subject, &setting))
}
