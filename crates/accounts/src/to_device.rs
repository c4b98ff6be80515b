//! The to-device inbox: messages wait for one device until it has told that it has them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use chappe_rules::json;
use chappe_store::{
    Direction, LogEntry, Position, Reader, Table, Tx,
    accounts::{Devices, Expiries},
    accounts_keys::{ToDevice, ToDeviceCounts, ToDeviceSenders, ToDeviceTxns},
};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use serde_json::value::RawValue;

use crate::{Accounts, Error, retry::retry, tokens::sha256};

/// Bytes of the content of one message, as many as Synapse takes.
pub(crate) const LONGEST: usize = 65_536;
/// Bytes of what is around it: the type, the sender.
const AROUND: usize = 1_024;
/// Bytes of messages written in one commit.
const AT_ONCE: usize = 2_000_000;
/// Bytes of all messages of one request together, each counted for every device that gets it.
pub(crate) const ALTOGETHER: usize = 64 << 20;
/// How long a transaction id is remembered, in milliseconds.
const REMEMBERED: u64 = 7 * 24 * 3600 * 1000;
/// Messages removed at once from an inbox that is full.
const TRIMMED: usize = 200;
/// Pages of as many messages looked through for those to be removed.
const PAGES: usize = 20;

/// Which devices of one user get which content.
#[derive(Clone, Debug)]
pub enum Recipients {
    /// All devices the user has now.
    All(Box<RawValue>),
    /// These; unknown ones are passed over.
    Devices(BTreeMap<OwnedDeviceId, Box<RawValue>>),
}

/// Messages to be sent.
#[derive(Clone, Debug)]
pub struct Sending<'a> {
    /// Who sends; of this server or, from a received transaction, of another.
    pub sender: &'a UserId,
    /// What makes it happen once: the sending device and what it names its request by, or the origin and its message id.
    pub once: Option<(&'a str, &'a str)>,
    /// Event type.
    pub event_type: &'a str,
    /// By user: local ones for [`Accounts::send_to_devices`], remote ones for [`crate::to_device_for_servers`].
    pub messages: &'a [(OwnedUserId, Recipients)],
}

/// A message that waits.
#[derive(Clone, Debug)]
pub struct ToDeviceMessage {
    /// Sent by this commit.
    pub position: Position,
    /// The message: `type`, `sender`, `content`.
    pub event: Box<RawValue>,
}

/// The inbox of a device.
type Inbox = (OwnedUserId, OwnedDeviceId);
/// Messages of an inbox.
type Rows = Vec<(<ToDevice as Table>::Key, Vec<u8>)>;

/// A message on its way into an inbox.
struct Letter {
    inbox: Inbox,
    event: Vec<u8>,
}

impl Accounts {
    /// Sends to local devices, together with what the caller has put into `tx` (rows of the federation's outbox,
    /// without expectations). `false` when the same was sent before: then nothing is written.
    ///
    /// What does not fit one commit goes in several, the caller's rows and the mark that it was sent in the last. Messages of
    /// another server that no device could take are left out.
    pub async fn send_to_devices(&self, sending: Sending<'_>, mut tx: Tx) -> Result<bool, Error> {
        let mark = sending.once.map(|(from, id)| sha256(&format!("{}\0{from}\0{id}", sending.sender)));
        let reader = self.store().read();
        if let Some(mark) = &mark
            && reader.get::<ToDeviceTxns>(mark).await?.is_some()
        {
            return Ok(false);
        }
        let mut letters = self.letters(&reader, &sending).await?;
        drop(reader);
        self.make_room(&letters).await?;
        while letters.iter().map(|letter| letter.event.len()).sum::<usize>() > AT_ONCE {
            let mut size = 0;
            let fits = letters.iter().take_while(|letter| {
                size += letter.event.len();
                size <= AT_ONCE
            });
            let rest = letters.split_off(fits.count().max(1));
            let mut part = Tx::new();
            draft_letters(&mut part, sending.sender, &letters);
            self.store().commit(part).await?;
            letters = rest;
        }
        draft_letters(&mut tx, sending.sender, &letters);
        if let Some(mark) = &mark {
            let now = self.world().now();
            tx.expect_absent::<ToDeviceTxns>(mark).put::<ToDeviceTxns>(mark, &now);
            tx.put::<Expiries>(&(now.saturating_add(REMEMBERED), ToDeviceTxns::INFO.number, *mark), &());
        }
        if tx.is_empty() {
            return Ok(true);
        }
        match (self.store().commit(tx).await, mark) {
            (Ok(_), _) => Ok(true),
            (Err(chappe_store::Error::Conflict), Some(mark))
                if self.store().read().get::<ToDeviceTxns>(&mark).await?.is_some() =>
            {
                Ok(false)
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    async fn letters(&self, reader: &Reader<'_>, sending: &Sending<'_>) -> Result<Vec<Letter>, Error> {
        let mut letters: Vec<Letter> = Vec::new();
        let mut bytes = 0;
        for (user, recipients) in sending.messages {
            let before = letters.len();
            match recipients {
                Recipients::All(content) => {
                    let Some(event) = self.event(sending, content)? else { continue };
                    for device in self.device_ids(reader, user).await? {
                        letters.push(Letter { inbox: (user.clone(), device), event: event.clone() });
                    }
                }
                Recipients::Devices(by_device) => {
                    let keys: Vec<_> =
                        by_device.keys().map(|device| (user.clone(), device.clone())).collect();
                    let there = reader.get_many::<Devices>(&keys).await?;
                    for ((inbox, content), device) in keys.into_iter().zip(by_device.values()).zip(there) {
                        if device.is_some()
                            && let Some(event) = self.event(sending, content)?
                        {
                            letters.push(Letter { inbox, event });
                        }
                    }
                }
            }
            bytes += letters[before..].iter().map(|letter| letter.event.len()).sum::<usize>();
            if bytes > ALTOGETHER {
                return Err(Error::TooLarge("to-device messages"));
            }
        }
        Ok(letters)
    }

    /// The message as a device gets it; none if another server sent what no device could take: what it came with is for
    /// others.
    fn event(&self, sending: &Sending<'_>, content: &RawValue) -> Result<Option<Vec<u8>>, Error> {
        match message(sending, content) {
            Err(error) if !self.is_local(sending.sender) => {
                tracing::info!(sender = %sending.sender, %error, "a message to a device was not taken");
                Ok(None)
            }
            event => event.map(Some),
        }
    }

    /// Makes room in full inboxes.
    async fn make_room(&self, letters: &[Letter]) -> Result<(), Error> {
        let inboxes: Vec<_> = letters.iter().map(|letter| letter.inbox.clone()).collect();
        let counts = self.store().read().get_many::<ToDeviceCounts>(&inboxes).await?;
        for (inbox, count) in inboxes.iter().zip(counts) {
            let count = usize::try_from(count.unwrap_or(0)).unwrap_or(0);
            if count >= self.config().limits.to_device {
                self.trim(inbox).await?;
                tracing::warn!(user = %inbox.0, device = %inbox.1, "inbox full, messages of who sent most are dropped");
            }
        }
        Ok(())
    }

    /// Removes messages of those who have most in an inbox, so that nobody pushes out what others sent.
    async fn trim(&self, inbox: &Inbox) -> Result<(), Error> {
        retry!({
            let reader = self.store().read();
            let mut counts = reader.scan_all::<ToDeviceSenders>(inbox).await?;
            let mut totals = BTreeMap::<String, i64>::new();
            for ((_, _, sender), count) in &counts {
                *totals.entry(self.source(sender).to_owned()).or_default() += count;
            }
            counts.sort_by_cached_key(|((_, _, sender), count)| {
                (Reverse(totals.get(self.source(sender)).copied()), Reverse(*count))
            });
            let (mut found, mut most) = (0, BTreeSet::new());
            for ((_, _, sender), count) in counts {
                if found < TRIMMED {
                    found += usize::try_from(count).unwrap_or(0);
                    most.insert(sender);
                }
            }
            let doomed = self.letters_of(&reader, inbox, &most).await?;
            self.remove_letters(&reader, inbox, doomed).await
        })
    }

    /// For whom a message counts in an inbox that is full: a user of this server, or the whole of another one, which can
    /// make up as many users as it likes.
    fn source<'a>(&self, sender: &'a UserId) -> &'a str {
        if sender.server_name() == self.server_name() {
            sender.as_str()
        } else {
            sender.server_name().as_str()
        }
    }

    /// The oldest messages of some senders, as many as are removed at once. If many of others lie before them, the newest
    /// of their sources, which filled the inbox; the oldest of anybody if there are none.
    async fn letters_of(
        &self,
        reader: &Reader<'_>,
        inbox: &Inbox,
        senders: &BTreeSet<OwnedUserId>,
    ) -> Result<Rows, Error> {
        let theirs =
            |(_, event): &(_, Vec<u8>)| sender_of(event).is_some_and(|sender| senders.contains(&sender));
        let mut found = Rows::new();
        let mut from = (inbox.0.clone(), inbox.1.clone(), 0, 0);
        let mut ended = false;
        for _ in 0..PAGES {
            let page = reader.scan_from::<ToDevice>(inbox, &from, TRIMMED).await?;
            ended = page.len() < TRIMMED;
            if let Some((last, _)) = page.last() {
                from = (last.0.clone(), last.1.clone(), last.2, last.3.saturating_add(1));
            }
            found.extend(page.into_iter().filter(theirs).take(TRIMMED - found.len()));
            if ended || found.len() == TRIMMED {
                break;
            }
        }
        if !ended && found.len() < TRIMMED {
            let sources: BTreeSet<_> = senders.iter().map(|sender| self.source(sender)).collect();
            let theirs =
                |event: &[u8]| sender_of(event).is_some_and(|sender| sources.contains(self.source(&sender)));
            let newest = reader.scan::<ToDevice>(inbox, Direction::Backward, TRIMMED).await?;
            let newest = newest.into_iter().filter(|(key, event)| *key >= from && theirs(event));
            found.extend(newest.take(TRIMMED - found.len()));
        }
        if found.is_empty() {
            found = reader.scan::<ToDevice>(inbox, Direction::Forward, TRIMMED).await?;
        }
        Ok(found)
    }

    async fn remove_letters(&self, reader: &Reader<'_>, inbox: &Inbox, rows: Rows) -> Result<(), Error> {
        let Some((first, event)) = rows.first() else { return Ok(()) };
        let mut tx = Tx::new();
        // Whoever removes the same messages at the same time finds the first one gone.
        tx.expect::<ToDevice>(first, Some(event));
        let mut by_sender: BTreeMap<_, i64> = BTreeMap::new();
        for (key, event) in &rows {
            tx.delete::<ToDevice>(key);
            if let Some(sender) = sender_of(event) {
                *by_sender.entry((inbox.0.clone(), inbox.1.clone(), sender)).or_default() += 1;
            }
        }
        let keys: Vec<_> = by_sender.keys().cloned().collect();
        let known = reader.get_many::<ToDeviceSenders>(&keys).await?;
        for ((key, gone), known) in by_sender.iter().zip(known) {
            // A message that comes at the same time may go uncounted: it is counted to find who sends most.
            if known.is_some_and(|known| known > *gone) {
                tx.add::<ToDeviceSenders>(key, -gone);
            } else {
                tx.delete::<ToDeviceSenders>(key);
            }
        }
        let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        tx.add::<ToDeviceCounts>(inbox, -count);
        self.store().commit(tx).await?;
        Ok(())
    }

    /// The messages waiting for a device after a position up to another, oldest first, at most `limit` or a little
    /// more: messages of one commit stay together.
    #[expect(clippy::too_many_arguments, reason = "a device is two, a range is two")]
    pub async fn to_device_messages(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
        device: &DeviceId,
        after: Position,
        up_to: Position,
        limit: usize,
    ) -> Result<Vec<ToDeviceMessage>, Error> {
        let inbox = (user.to_owned(), device.to_owned());
        let from = (inbox.0.clone(), inbox.1.clone(), after.0 + 1);
        let mut rows = reader.scan_from::<ToDevice>(&inbox, &from, limit).await?;
        if rows.len() == limit
            && let Some((last, _)) = rows.last()
        {
            let cut = (inbox.0.clone(), inbox.1.clone(), last.2);
            let rest = reader.scan::<ToDevice>(&cut, Direction::Forward, usize::MAX).await?;
            rows.retain(|(key, _)| key.2 < cut.2);
            rows.extend(rest);
        }
        let message = |((_, _, position, _), event): ((_, _, u64, _), Vec<u8>)| {
            let text =
                String::from_utf8(event).map_err(|_| chappe_store::Error::Corrupt("to-device message"))?;
            let event = RawValue::from_string(text);
            let event = event.map_err(|_| chappe_store::Error::Corrupt("to-device message"))?;
            Ok(ToDeviceMessage { position: Position(position), event })
        };
        rows.into_iter().filter(|(key, _)| key.2 <= up_to.0).map(message).collect()
    }

    /// Forgets the messages up to a position (included): the device has them.
    pub async fn delete_to_device(
        &self,
        user: &UserId,
        device: &DeviceId,
        up_to: Position,
    ) -> Result<(), Error> {
        const PAGE: usize = 1000;
        let inbox = (user.to_owned(), device.to_owned());
        loop {
            let more = retry!({
                let reader = self.store().read();
                let mut rows = reader.scan::<ToDevice>(&inbox, Direction::Forward, PAGE).await?;
                let full = rows.len() == PAGE;
                rows.retain(|(key, _)| key.2 <= up_to.0);
                let more = full && rows.len() == PAGE;
                self.remove_letters(&reader, &inbox, rows).await?;
                Ok(more)
            })?;
            if !more {
                return Ok(());
            }
        }
    }
}

fn sender_of(event: &[u8]) -> Option<OwnedUserId> {
    #[derive(serde::Deserialize)]
    struct Event {
        sender: OwnedUserId,
    }
    serde_json::from_slice::<Event>(event).ok().map(|event| event.sender)
}

/// Empties the inbox of a device that is not there any more.
pub(crate) fn draft_empty_inbox(tx: &mut Tx, inbox: &Inbox) {
    tx.delete_prefix::<ToDevice>(inbox).delete_prefix::<ToDeviceSenders>(inbox);
    tx.delete::<ToDeviceCounts>(inbox);
}

/// The message as the device gets it; [`Error::TooLarge`]. [`Error::BadJson`] if it is no object, or would keep a device or a
/// server from reading all that it comes with: half a character, a key twice, nests without end.
pub(crate) fn message(sending: &Sending<'_>, content: &RawValue) -> Result<Vec<u8>, Error> {
    #[derive(serde::Serialize)]
    struct Event<'a> {
        r#type: &'a str,
        sender: &'a UserId,
        content: &'a RawValue,
    }
    let event = Event { r#type: sending.event_type, sender: sending.sender, content };
    let bytes = serde_json::to_vec(&event).map_err(|error| Error::BadJson(error.to_string()))?;
    let length = content.get().len();
    if length > LONGEST || bytes.len() - length > AROUND {
        return Err(Error::TooLarge("to-device message"));
    }
    json::check_told(content.get().as_bytes()).map_err(|error| Error::BadJson(error.to_string()))?;
    Ok(bytes)
}

fn draft_letters(tx: &mut Tx, sender: &UserId, letters: &[Letter]) {
    for (index, letter) in (0_u32..).zip(letters) {
        tx.put_at_position::<ToDevice>(&letter.inbox, &index, &letter.event);
        tx.add::<ToDeviceCounts>(&letter.inbox, 1);
        let (user, device) = letter.inbox.clone();
        tx.add::<ToDeviceSenders>(&(user.clone(), device.clone(), sender.to_owned()), 1);
        tx.log(LogEntry::ToDevice { user, device });
    }
}
