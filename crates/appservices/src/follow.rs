//! Following the log: which service has to be told what, decided in the order in which it happened.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chappe_rules::appservice::Registration;
use chappe_store::{
    Cursors, Entry, EventNum, LogEntry, Membership, Position, Reader, RoomNid, Store, Tx,
    services::{ServiceItem, ServiceRooms},
};
use ruma::{OwnedDeviceId, OwnedUserId, UserId};

use crate::{
    Error, Services,
    interest::{Interest, RoomNames, concerns, knows},
};

/// The name of this follower's cursor.
pub(crate) const CURSOR: &str = "appservices";
/// Entries dealt with in one commit.
const PAGE: usize = 200;
/// The cursor is written this often where nothing else is; what lies between concerns no service.
const CURSOR_INTERVAL: Duration = Duration::from_secs(10);
/// Wait after a failed read of the store.
const PAUSE: Duration = Duration::from_secs(1);

impl Services {
    pub(crate) async fn follow(self) {
        let world = self.0.deps.link.world().clone();
        while !world.is_stopping() {
            if let Err(error) = self.follow_on().await {
                tracing::error!(%error, "the log cannot be followed for application services");
                tokio::select! {
                    () = world.sleep(PAUSE) => {}
                    () = world.stopping() => {}
                }
            }
        }
    }

    async fn follow_on(&self) -> Result<(), Error> {
        let (world, store) = (self.0.deps.link.world().clone(), self.0.deps.store.clone());
        let mut visible = store.visible();
        let mut written = store.read().get::<Cursors>(&CURSOR.to_owned()).await?.unwrap_or(0);
        let mut seen = written;
        let mut written_at = world.instant();
        loop {
            let more = self.follow_page(&store, &mut seen, &mut written).await?;
            let pause = written_at.elapsed() >= CURSOR_INTERVAL;
            if seen > written && (pause || world.is_stopping()) {
                let mut tx = Tx::new();
                tx.put::<Cursors>(&CURSOR.to_owned(), &seen);
                store.commit(tx).await?;
                written = seen;
            }
            if pause {
                written_at = world.instant();
            }
            if world.is_stopping() {
                return Ok(());
            }
            if !more {
                tokio::select! {
                    changed = visible.changed() => if changed.is_err() { return Ok(()) },
                    () = world.stopping() => {}
                }
            }
        }
    }

    /// Deals with a page of the log after `seen`; gives whether there was any. What services are told and how far the
    /// follower has come is one commit, so that nobody is told anything twice or never.
    async fn follow_page(&self, store: &Store, seen: &mut u64, written: &mut u64) -> Result<bool, Error> {
        let reader = store.read();
        let entries = reader.log_after(Position(*seen), PAGE).await?;
        let Some(last) = entries.last().map(|entry| entry.position.0) else { return Ok(false) };
        let mut page = Page::new(&self.0.interest, reader);
        for entry in &entries {
            page.take(entry).await?;
        }
        let (mut tx, told) = page.close();
        if !tx.is_empty() {
            tx.put::<Cursors>(&CURSOR.to_owned(), &last);
            store.commit(tx).await?;
            *written = last;
        }
        *seen = last;
        for lane in told.iter().filter_map(|id| self.0.lanes.get(id)) {
            lane.wake.notify_one();
        }
        Ok(true)
    }
}

/// A page of the log on its way into the queues.
struct Page<'a> {
    interest: &'a Interest,
    reader: Reader<'a>,
    tx: Tx,
    rows: u32,
    told: BTreeSet<String>,
    /// Users of services in rooms as they are at this place of the log, and whether they changed on this page.
    users: HashMap<(String, RoomNid), (u64, bool)>,
    names: RoomNames,
    /// To-device messages of one commit to one device are one item.
    letters: HashSet<(OwnedUserId, OwnedDeviceId, u64)>,
}

impl<'a> Page<'a> {
    fn new(interest: &'a Interest, reader: Reader<'a>) -> Self {
        Self {
            interest,
            reader,
            tx: Tx::new(),
            rows: 0,
            told: BTreeSet::new(),
            users: HashMap::new(),
            names: RoomNames::default(),
            letters: HashSet::new(),
        }
    }

    /// What has to be written, and whom there is news for.
    fn close(mut self) -> (Tx, BTreeSet<String>) {
        for (key, (users, _)) in self.users.iter().filter(|(_, (_, changed))| *changed) {
            if *users == 0 {
                self.tx.delete::<ServiceRooms>(key);
            } else {
                self.tx.put::<ServiceRooms>(key, users);
            }
        }
        (self.tx, self.told)
    }

    async fn take(&mut self, entry: &Entry) -> Result<(), Error> {
        let at = entry.position.0;
        match &entry.what {
            LogEntry::ServiceUser { user, room, joined } => {
                self.count(at, user, RoomNid(*room), *joined).await
            }
            LogEntry::Event { room, event, member, .. } => {
                self.event(at, RoomNid(*room), EventNum(*event), member.as_deref()).await
            }
            LogEntry::OutOfBandMembership { user, room } => {
                let item = ServiceItem::OutOfBand { user: user.clone(), room: room.clone() };
                self.tell_covering(at, user, &item, |_| true);
                Ok(())
            }
            LogEntry::Receipt { room, user, private, local: true } => {
                self.receipt(at, RoomNid(*room), user, *private).await
            }
            LogEntry::Receipt { room, local: false, .. } => self.remote_receipts(at, RoomNid(*room)).await,
            LogEntry::ToDevice { user, device } => {
                if self.letters.insert((user.clone(), device.clone(), at)) {
                    let item = ServiceItem::ToDevice { user: user.clone(), device: device.clone(), at };
                    self.tell_covering(at, user, &item, |service| service.wants.encryption);
                }
                Ok(())
            }
            LogEntry::OneTimeKeys { user, device } => {
                let item = ServiceItem::Keys { user: user.clone(), device: device.clone() };
                self.tell_covering(at, user, &item, |service| service.wants.encryption);
                Ok(())
            }
            LogEntry::DeviceList { user } => self.device_list(at, user).await,
            _ => Ok(()),
        }
    }

    fn tell(&mut self, at: u64, service: &Registration, item: &ServiceItem) {
        if service.url.is_some() && at > self.interest.begun(service) {
            self.tx.tell_service(&service.id, self.rows, item);
            self.rows = self.rows.saturating_add(1);
            self.told.insert(service.id.clone());
        }
    }

    fn tell_covering(
        &mut self,
        at: u64,
        user: &UserId,
        item: &ServiceItem,
        wants: impl Fn(&Registration) -> bool,
    ) {
        let interest = self.interest;
        for service in interest.services().iter().filter(|service| wants(service)) {
            if service.covers_user(user) {
                self.tell(at, service, item);
            }
        }
    }

    /// How many users of a service are in a room at this place of the log.
    async fn users_in(&mut self, service: &Registration, nid: RoomNid) -> Result<u64, Error> {
        let key = (service.id.clone(), nid);
        if let Some((users, _)) = self.users.get(&key) {
            return Ok(*users);
        }
        let interest = self.interest;
        let all: Vec<&str> = interest.services().iter().map(|service| service.id.as_str()).collect();
        let counts = self.reader.service_users_in(&all, nid).await?;
        for (id, users) in all.iter().zip(counts) {
            self.users.entry(((*id).to_owned(), nid)).or_insert((users, false));
        }
        Ok(self.users.get(&key).map_or(0, |(users, _)| *users))
    }

    async fn count(&mut self, at: u64, user: &UserId, nid: RoomNid, joined: bool) -> Result<(), Error> {
        let interest = self.interest;
        for service in interest.services().iter().filter(|service| service.covers_user(user)) {
            if at <= interest.counted(service) {
                continue;
            }
            let users = self.users_in(service, nid).await?;
            let users = if joined { users.saturating_add(1) } else { users.saturating_sub(1) };
            self.users.insert((service.id.clone(), nid), (users, true));
        }
        Ok(())
    }

    async fn concerns(&mut self, service: &Registration, nid: RoomNid) -> Result<bool, Error> {
        let users = self.users_in(service, nid).await?;
        let room = self.names.name(&self.reader, nid).await?;
        Ok(concerns(&self.reader, service, users, (nid, &room)).await?)
    }

    async fn event(
        &mut self,
        at: u64,
        nid: RoomNid,
        event: EventNum,
        member: Option<&UserId>,
    ) -> Result<(), Error> {
        let interest = self.interest;
        for service in interest.services() {
            let covers = member.is_some_and(|member| service.covers_user(member));
            if !covers && !self.concerns(service, nid).await? {
                continue;
            }
            self.tell(at, service, &ServiceItem::Event { room: nid.0, event: event.0 });
            if let Some(member) = member.filter(|_| service.wants.encryption && !covers) {
                self.acquaintance(at, service, nid, member).await?;
            }
        }
        Ok(())
    }

    /// Somebody's membership in a room of a service changed: their devices are its business, or are so no longer.
    async fn acquaintance(
        &mut self,
        at: u64,
        service: &Arc<Registration>,
        nid: RoomNid,
        member: &UserId,
    ) -> Result<(), Error> {
        let user = member.to_owned();
        let now = self.reader.membership(nid, member).await?;
        if now.is_some_and(|(membership, _)| membership == Membership::Join) {
            self.tell(at, service, &ServiceItem::DeviceList { user });
        } else if !knows(&self.reader, service, member).await? {
            self.tell(at, service, &ServiceItem::NoLongerShared { user });
        }
        Ok(())
    }

    async fn receipt(&mut self, at: u64, nid: RoomNid, user: &UserId, private: bool) -> Result<(), Error> {
        let item = ServiceItem::Receipt { room: nid.0, user: user.to_owned(), at };
        let interest = self.interest;
        for service in interest.services().iter().filter(|service| service.wants.any_ephemeral()) {
            if service.covers_user(user) || (!private && self.concerns(service, nid).await?) {
                self.tell(at, service, &item);
            }
        }
        Ok(())
    }

    /// The receipts of another server's users that came together.
    async fn remote_receipts(&mut self, at: u64, nid: RoomNid) -> Result<(), Error> {
        if !self.interest.services().iter().any(|service| service.wants.any_ephemeral()) {
            return Ok(());
        }
        let users = self.reader.readers_at(nid, Position(at)).await?;
        for user in users {
            self.receipt(at, nid, &user, false).await?;
        }
        Ok(())
    }

    async fn device_list(&mut self, at: u64, user: &UserId) -> Result<(), Error> {
        let item = ServiceItem::DeviceList { user: user.to_owned() };
        let interest = self.interest;
        for service in interest.services().iter().filter(|service| service.wants.encryption) {
            if knows(&self.reader, service, user).await? {
                self.tell(at, service, &item);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use chappe_kv::{Db, Memory};
    use chappe_store::receipts::{ReceiptKey, ReceiptKind};
    use chappe_world::Guard;
    use ruma::{event_id, owned_user_id, room_id, server_name};

    use super::*;
    use crate::registration::read_registrations;

    const BRIDGE: &str = "
id: bridge
url: https://bridge.example
as_token: a
hs_token: b
sender_localpart: bot
receive_ephemeral: true
namespaces: { users: [], aliases: [], rooms: [{ exclusive: false, regex: '!r:.*' }] }
";

    #[tokio::test]
    async fn receipts_that_came_together_are_told_of_each_user() {
        let files = [("bridge.yaml".to_owned(), BRIDGE.to_owned())];
        let services = read_registrations(&files, server_name!("a.fr"), &Guard::new(Vec::new())).unwrap();
        let store = Store::new(Db::new(Memory::default()));
        let interest = Interest::open(&store, &services).await.unwrap();
        let (nid, users) = (RoomNid(1), [owned_user_id!("@ann:b.fr"), owned_user_id!("@bob:b.fr")]);
        let mut tx = Tx::new();
        tx.new_room(nid, room_id!("!r:a.fr"));
        for user in &users {
            let key = ReceiptKey { user: user.clone(), kind: ReceiptKind::Public, thread: String::new() };
            tx.put_receipt(nid, &key, None, (event_id!("$1"), 5));
        }
        let user = users[1].clone();
        tx.log(LogEntry::Receipt { room: nid.0, user, private: false, local: false });
        let at = store.commit(tx).await.unwrap();
        let mut page = Page::new(&interest, store.read());
        for entry in store.read().log_after(Position(0), 10).await.unwrap() {
            page.take(&entry).await.unwrap();
        }
        store.commit(page.close().0).await.unwrap();
        let queue = store.read().service_queue("bridge", 10).await.unwrap();
        let told: Vec<ServiceItem> = queue.into_iter().map(|(_, item)| item).collect();
        assert_eq!(told, users.map(|user| ServiceItem::Receipt { room: nid.0, user, at: at.0 }));
    }
}
