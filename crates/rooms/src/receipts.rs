//! Read receipts and read markers.

use chappe_accounts::Scope;
use chappe_store::{
    At, LogEntry, Reader, RoomNid, Tx,
    receipts::{Receipt, ReceiptKey, ReceiptKind},
};
use ruma::{
    EventId, OwnedEventId, RoomId, ServerName, UserId, api::client::receipt::create_receipt::v3::ReceiptType,
    events::receipt::ReceiptThread,
};
use serde_json::json;

use crate::{
    Actor, Error, Result, Rooms,
    read::view::{Event, View},
    visible::Access,
};

/// Times a conflicting write is tried again.
const ATTEMPTS: usize = 20;

/// The thread of what is in none, as it is stored.
const MAIN: &str = "main";
/// Threads of a room in which a user has receipts of one kind; beyond, the oldest goes.
const MOST_THREADS: usize = 1_000;
/// The longest id of a thread, in bytes: it becomes a key.
const LONGEST_ID: usize = 255;
/// Relations followed from an event to its thread.
const STEPS: usize = 3;

/// The account data that keeps the read marker.
const FULLY_READ: &str = "m.fully_read";

/// What `POST /rooms/{roomId}/read_markers` sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Markers {
    /// `m.fully_read`.
    pub fully_read: Option<OwnedEventId>,
    /// `m.read`.
    pub read: Option<OwnedEventId>,
    /// `m.read.private`.
    pub private_read: Option<OwnedEventId>,
}

/// A receipt of another server's user.
#[derive(Clone, Debug)]
pub struct RemoteReceipt<'a> {
    /// Whose.
    pub user: &'a UserId,
    /// The event read.
    pub event: &'a EventId,
    /// When, in milliseconds since the Unix epoch.
    pub ts: u64,
    /// In which thread.
    pub thread: ReceiptThread,
}

/// What one request writes.
struct Reading<'a> {
    user: &'a UserId,
    kind: ReceiptKind,
    event: &'a EventId,
    thread: String,
    ts: u64,
}

impl Rooms {
    /// `POST /rooms/{roomId}/receipt/{receiptType}/{eventId}`. A receipt never moves backwards: an older one is taken
    /// without effect.
    pub async fn set_receipt(
        &self,
        actor: &Actor,
        room: &RoomId,
        kind: &ReceiptType,
        event: &EventId,
        thread: &ReceiptThread,
    ) -> Result<()> {
        let markers = match kind {
            ReceiptType::FullyRead if *thread != ReceiptThread::Unthreaded => {
                return Err(Error::InvalidParam("m.fully_read knows no threads".to_owned()));
            }
            ReceiptType::FullyRead => Markers { fully_read: Some(event.to_owned()), ..Markers::default() },
            ReceiptType::Read => Markers { read: Some(event.to_owned()), ..Markers::default() },
            ReceiptType::ReadPrivate => {
                Markers { private_read: Some(event.to_owned()), ..Markers::default() }
            }
            other => return Err(Error::InvalidParam(format!("unknown receipt type {}", other.as_str()))),
        };
        self.mark(actor, room, &markers, thread).await
    }

    /// `POST /rooms/{roomId}/read_markers`: all of them in one commit.
    pub async fn set_markers(&self, actor: &Actor, room: &RoomId, markers: &Markers) -> Result<()> {
        self.mark(actor, room, markers, &ReceiptThread::Unthreaded).await
    }

    async fn mark(
        &self,
        actor: &Actor,
        room: &RoomId,
        markers: &Markers,
        thread: &ReceiptThread,
    ) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let tx = self.marking(actor, room, markers, thread).await?;
            if tx.is_empty() {
                return Ok(());
            }
            match self.0.store.commit(tx).await {
                Err(chappe_store::Error::Conflict) => {}
                done => return done.map(drop).map_err(Error::from),
            }
        }
        Err(Error::Retry)
    }

    async fn marking(
        &self,
        actor: &Actor,
        room: &RoomId,
        markers: &Markers,
        thread: &ReceiptThread,
    ) -> Result<Tx> {
        let view = self.view(room).await.map_err(crate::read::state::no_such_room)?;
        if view.access(&actor.user).await? != Access::Joined {
            return Err(Error::Forbidden("you are not a member of this room".to_owned()));
        }
        let mut tx = Tx::new();
        let ts = self.0.world.now();
        let kinds = [(ReceiptKind::Public, &markers.read), (ReceiptKind::Private, &markers.private_read)];
        for (kind, event) in kinds {
            let Some(event) = event else { continue };
            let seen = view.seen_by(&actor.user, event).await?;
            let thread = view.thread_of(thread, &seen.event).await?;
            let reading = Reading { user: &actor.user, kind, event, thread, ts };
            if view.read_up_to(&mut tx, &reading).await? {
                tx.log(view.news(&actor.user, kind == ReceiptKind::Private, true));
            }
        }
        if let Some(event) = &markers.fully_read {
            view.seen_by(&actor.user, event).await?;
            let (scope, content) = (Scope::Room(room), json!({ "event_id": event }).to_string());
            let accounts = &self.0.accounts;
            let draft =
                accounts.draft_account_data(&view.reader, &mut tx, &actor.user, scope, FULLY_READ, &content);
            draft.await.map_err(not_marked)?;
        }
        Ok(tx)
    }

    /// Takes the public receipts of a room that `origin` sent together (`m.receipt` EDU), at most one of each user: one commit
    /// and one entry of the log for all of them. Whatever is not its business is ignored, and what cannot be placed left out.
    pub async fn take_receipts(
        &self,
        origin: &ServerName,
        room: &RoomId,
        receipts: &[RemoteReceipt<'_>],
    ) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let Ok(view) = self.view_for(origin, room).await else { return Ok(()) };
            let (mut tx, mut taken) = (Tx::new(), None);
            for receipt in receipts {
                if receipt.user.server_name() != origin {
                    continue;
                }
                match view.take_receipt(&mut tx, receipt).await {
                    Ok(true) => taken = Some(receipt.user),
                    Ok(false) => {}
                    Err(error @ Error::Store(chappe_store::Error::Engine(_))) => return Err(error),
                    Err(error) => tracing::info!(%room, %error, "a receipt was not taken"),
                }
            }
            let Some(user) = taken else { return Ok(()) };
            tx.log(view.news(user, false, false));
            match self.0.store.commit(tx).await {
                Err(chappe_store::Error::Conflict) => {}
                done => return done.map(drop).map_err(Error::from),
            }
        }
        Err(Error::Retry)
    }
}

fn not_marked(error: chappe_accounts::Error) -> Error {
    match error {
        chappe_accounts::Error::Store(error) => error.into(),
        other => Error::Forbidden(other.to_string()),
    }
}

/// The thread root that an event names.
fn root_of(event: &Event) -> Option<OwnedEventId> {
    event.pdu.relation().filter(|(kind, _)| kind == "m.thread").map(|(_, root)| root)
}

fn fits(root: &EventId) -> bool {
    root.as_bytes().len() <= LONGEST_ID
}

impl View<'_> {
    /// The thread of a receipt as it is stored; the event must belong to it.
    ///
    /// Specification: client-server API, "Threaded read receipts".
    async fn thread_of(&self, thread: &ReceiptThread, event: &Event) -> Result<String> {
        match thread {
            ReceiptThread::Unthreaded => Ok(String::new()),
            ReceiptThread::Main if root_of(event).is_some() => {
                Err(Error::InvalidParam("the event is in a thread, not in the main timeline".to_owned()))
            }
            ReceiptThread::Main => Ok(MAIN.to_owned()),
            ReceiptThread::Thread(root) if fits(root) && self.is_in_thread(event, root).await? => {
                Ok(root.to_string())
            }
            ReceiptThread::Thread(_) => {
                Err(Error::InvalidParam("the event is not in this thread".to_owned()))
            }
            _ => Err(Error::InvalidParam("thread_id is neither main nor an event id".to_owned())),
        }
    }

    /// Whether an event is the root of a thread, an answer in it, or relates to one of these.
    async fn is_in_thread(&self, event: &Event, root: &EventId) -> Result<bool> {
        let mut event = event.clone();
        for _ in 0..=STEPS {
            if event.pdu.event_id() == root || root_of(&event).as_deref() == Some(root) {
                return Ok(true);
            }
            let Some((_, parent)) = event.pdu.relation().filter(|(kind, _)| kind != "m.thread") else {
                return Ok(false);
            };
            let Some(num) = self.reader.event_num(self.nid, &parent).await? else { return Ok(false) };
            event = self.load_one(num).await?;
        }
        Ok(false)
    }

    /// Gives whether a remote user has read on.
    async fn take_receipt(&self, tx: &mut Tx, receipt: &RemoteReceipt<'_>) -> Result<bool> {
        if !self.reader.may_be_joined(self.nid, receipt.user).await? {
            return Ok(false);
        }
        let thread = match &receipt.thread {
            ReceiptThread::Unthreaded => String::new(),
            ReceiptThread::Main => MAIN.to_owned(),
            ReceiptThread::Thread(root) if fits(root) => root.to_string(),
            _ => return Ok(false),
        };
        let (user, event, ts) = (receipt.user, receipt.event, receipt.ts);
        self.read_up_to(tx, &Reading { user, kind: ReceiptKind::Public, event, thread, ts }).await
    }

    /// What the log says of a receipt.
    fn news(&self, user: &UserId, private: bool, local: bool) -> LogEntry {
        LogEntry::Receipt { room: self.nid.0, user: user.to_owned(), private, local }
    }

    /// Gives whether that is later than what was read before; the caller puts it into the log.
    async fn read_up_to(&self, tx: &mut Tx, reading: &Reading<'_>) -> Result<bool> {
        let key =
            ReceiptKey { user: reading.user.to_owned(), kind: reading.kind, thread: reading.thread.clone() };
        let old = self.reader.receipt(self.nid, &key).await?;
        if let Some(old) = &old
            && !self.is_later(reading.event, old).await?
        {
            return Ok(false);
        }
        if old.is_none() && !key.thread.is_empty() && key.thread != MAIN {
            self.forget_oldest_thread(tx, &key).await?;
        }
        tx.put_receipt(self.nid, &key, old.as_ref(), (reading.event, reading.ts));
        Ok(true)
    }

    /// Makes room for a receipt in one more thread.
    async fn forget_oldest_thread(&self, tx: &mut Tx, new: &ReceiptKey) -> Result<()> {
        let all = self.reader.user_receipts(self.nid, &new.user).await?;
        let of_threads =
            |key: &ReceiptKey| key.kind == new.kind && !key.thread.is_empty() && key.thread != MAIN;
        let threads: Vec<_> = all.into_iter().filter(|(key, _)| of_threads(key)).collect();
        if threads.len() >= MOST_THREADS
            && let Some((key, oldest)) = threads.iter().min_by_key(|(_, at)| at.position)
        {
            tx.delete_receipt(self.nid, key, oldest);
        }
        Ok(())
    }

    /// Whether `event` stands behind the event of an older receipt; so it does if this server lacks either.
    async fn is_later(&self, event: &EventId, old: &At<Receipt>) -> Result<bool> {
        if old.value.event.0 == event {
            return Ok(false);
        }
        let (new, old) = (
            ordinal_of(&self.reader, self.nid, event).await?,
            ordinal_of(&self.reader, self.nid, &old.value.event.0).await?,
        );
        Ok(match (new, old) {
            (Some(new), Some(old)) => new > old,
            _ => true,
        })
    }
}

async fn ordinal_of(reader: &Reader<'_>, nid: RoomNid, event: &EventId) -> Result<Option<i64>> {
    let Some(num) = reader.event_num(nid, event).await? else { return Ok(None) };
    Ok(reader.event_meta(nid, num).await?.ordinal)
}

#[cfg(test)]
mod tests {
    use chappe_store::receipts::{ReceiptKey, ReceiptKind};
    use ruma::{OwnedEventId, RoomId, event_id, events::receipt::ReceiptThread, user_id};
    use serde_json::json;

    use super::{MOST_THREADS, Markers, Reading, ReceiptType, RemoteReceipt};
    use crate::{
        Actor, Error,
        testing::{Town, actor},
    };

    async fn read(town: &Town, who: &Actor, room: &RoomId, thread: &str) -> Option<OwnedEventId> {
        let reader = town.store.read();
        let nid = reader.room_nid(room).await.unwrap().unwrap();
        let (user, thread) = (who.user.clone(), thread.to_owned());
        let key = ReceiptKey { user, kind: ReceiptKind::Public, thread };
        reader.receipt(nid, &key).await.unwrap().map(|at| at.value.event.0)
    }

    #[tokio::test]
    async fn receipts_only_move_forward() {
        let town = Town::new();
        let (anna, bob) = (actor("anna"), actor("bob"));
        let room = town.room(&anna, json!({ "preset": "public_chat" })).await;
        let one = town.say(&anna, &room, json!({ "body": "1" })).await;
        let two = town.say(&anna, &room, json!({ "body": "2" })).await;
        let set = async |who: &Actor, event: &OwnedEventId, thread: ReceiptThread| {
            town.rooms.set_receipt(who, &room, &ReceiptType::Read, event, &thread).await
        };
        set(&anna, &two, ReceiptThread::Unthreaded).await.unwrap();
        let before = town.store.read().position();
        set(&anna, &one, ReceiptThread::Unthreaded).await.unwrap();
        assert_eq!(read(&town, &anna, &room, "").await, Some(two.clone()));
        assert_eq!(town.store.read().position(), before, "an older receipt writes nothing");
        set(&anna, &one, ReceiptThread::Main).await.unwrap();
        assert_eq!(read(&town, &anna, &room, "main").await, Some(one.clone()));
        assert!(matches!(set(&bob, &two, ReceiptThread::Main).await, Err(Error::Forbidden(_))));

        let nid = town.store.read().room_nid(&room).await.unwrap().unwrap();
        let reader = town.store.read();
        assert_eq!(reader.receipts_after(nid, before).await.unwrap().len(), 1);
        assert_eq!(reader.receipts_after(nid, chappe_store::Position(0)).await.unwrap().len(), 2);
        assert_eq!(reader.room_receipts(nid).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_threaded_receipt_stays_in_its_thread() {
        let town = Town::new();
        let anna = actor("anna");
        let room = town.room(&anna, json!({})).await;
        let top = town.say(&anna, &room, json!({ "body": "root" })).await;
        let other = town.say(&anna, &room, json!({ "body": "other" })).await;
        let relation = json!({ "rel_type": "m.thread", "event_id": top });
        let reply = town.say(&anna, &room, json!({ "body": "reply", "m.relates_to": relation })).await;
        let set = async |event: &OwnedEventId, thread: ReceiptThread| {
            town.rooms.set_receipt(&anna, &room, &ReceiptType::Read, event, &thread).await
        };
        set(&reply, ReceiptThread::Thread(top.clone())).await.unwrap();
        assert!(matches!(set(&reply, ReceiptThread::Main).await, Err(Error::InvalidParam(_))));
        for root in [&other, event_id!("$made-up")] {
            for event in [&reply, &top] {
                let outcome = set(event, ReceiptThread::Thread(root.to_owned())).await;
                assert!(matches!(outcome, Err(Error::InvalidParam(_))), "{event} is not in {root}");
            }
        }
        set(&top, ReceiptThread::Thread(top.clone())).await.unwrap();
        let relation = json!({ "rel_type": "m.annotation", "event_id": reply, "key": "x" });
        let reaction = town.say(&anna, &room, json!({ "body": "", "m.relates_to": relation })).await;
        set(&reaction, ReceiptThread::Thread(top)).await.unwrap();
        let long = OwnedEventId::try_from(format!("${}", "x".repeat(300))).unwrap();
        let relation = json!({ "rel_type": "m.thread", "event_id": long });
        let lost = town.say(&anna, &room, json!({ "body": "lost", "m.relates_to": relation })).await;
        assert!(matches!(set(&lost, ReceiptThread::Thread(long)).await, Err(Error::InvalidParam(_))));
        let unknown = event_id!("$unknown").to_owned();
        assert!(matches!(set(&unknown, ReceiptThread::Unthreaded).await, Err(Error::NotFound(_))));
    }

    #[tokio::test]
    async fn a_user_has_receipts_in_so_many_threads() {
        let town = Town::new();
        let anna = actor("anna");
        let room = town.room(&anna, json!({})).await;
        let most = MOST_THREADS;
        for thread in
            [String::new(), "main".to_owned()].into_iter().chain((0..=most).map(|n| format!("$t{n}")))
        {
            let view = town.rooms.view(&room).await.unwrap();
            let (user, kind, event) = (&*anna.user, ReceiptKind::Public, event_id!("$unknown"));
            let mut tx = chappe_store::Tx::new();
            let reading = Reading { user, kind, event, thread, ts: 1 };
            view.read_up_to(&mut tx, &reading).await.unwrap();
            town.store.commit(tx).await.unwrap();
        }
        let reader = town.store.read();
        let nid = reader.room_nid(&room).await.unwrap().unwrap();
        assert_eq!(reader.room_receipts(nid).await.unwrap().len(), 2 + most);
        assert_eq!(reader.receipts_after(nid, chappe_store::Position(0)).await.unwrap().len(), 2 + most);
        assert_eq!(read(&town, &anna, &room, "$t0").await, None, "the oldest went");
        assert!(
            read(&town, &anna, &room, "").await.is_some() && read(&town, &anna, &room, "$t1").await.is_some()
        );
    }

    #[tokio::test]
    async fn markers_are_one_commit() {
        let town = Town::new();
        let anna = actor("anna");
        let room = town.room(&anna, json!({})).await;
        let event = town.say(&anna, &room, json!({ "body": "1" })).await;
        town.trips.take();
        let markers = Markers {
            fully_read: Some(event.clone()),
            read: Some(event.clone()),
            private_read: Some(event.clone()),
        };
        town.rooms.set_markers(&anna, &room, &markers).await.unwrap();
        assert_eq!(town.trips.take().2, 1);
        let scope = chappe_accounts::Scope::Room(&room);
        let data = town.accounts.account_data(&town.store.read(), &anna.user, scope, "m.fully_read").await;
        assert_eq!(data.unwrap().unwrap().get(), json!({ "event_id": event }).to_string());
    }

    #[tokio::test]
    async fn receipts_of_others_users_are_not_taken() {
        let town = Town::new();
        let anna = actor("anna");
        let room = town.room(&anna, json!({})).await;
        let event = town.say(&anna, &room, json!({ "body": "1" })).await;
        let take = async |origin: &str, user| {
            let thread = ReceiptThread::Unthreaded;
            let receipt = RemoteReceipt { user, event: &event, ts: 1, thread };
            town.rooms.take_receipts(origin.try_into().unwrap(), &room, &[receipt]).await.unwrap();
        };
        take("there.fr", &*anna.user).await;
        assert_eq!(read(&town, &anna, &room, "").await, None);
        let before = town.store.read().position();
        take("there.fr", user_id!("@not_a_member:there.fr")).await;
        assert_eq!(town.store.read().position(), before);
    }
}
