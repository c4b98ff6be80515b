//! The to-device inbox: messages wait for one device until it has told that it has them.

use std::collections::BTreeMap;

use chappe_store::{
    Direction, LogEntry, Position, Reader, Table, Tx,
    accounts::{Devices, Expiries},
    accounts_keys::{ToDevice, ToDeviceCounts, ToDeviceTxns},
};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use serde_json::value::RawValue;

use crate::{Accounts, Error, retry::retry, tokens::sha256};

/// Bytes of one message.
const LONGEST: usize = 63_000;
/// Bytes of messages written in one commit.
const AT_ONCE: usize = 2_000_000;
/// Bytes of all messages of one request together, each counted for every device that gets it.
const ALTOGETHER: usize = 64 << 20;
/// How long a transaction id is remembered, in milliseconds.
const REMEMBERED: u64 = 7 * 24 * 3600 * 1000;
/// Messages removed at once from an inbox that is full.
const TRIMMED: usize = 200;

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
    /// What makes it happen once: the sending device and its transaction id, or the origin and its message id.
    pub once: Option<(&'a str, &'a str)>,
    /// Event type.
    pub event_type: &'a str,
    /// By local user; remote users are the federation's.
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

/// A message on its way into an inbox.
struct Letter {
    inbox: (OwnedUserId, OwnedDeviceId),
    event: Vec<u8>,
}

impl Accounts {
    /// Sends to local devices, together with what the caller has put into `tx` (rows of the federation's outbox,
    /// without expectations). `false` when the same was sent before: then nothing is written.
    ///
    /// What does not fit one commit goes in several, the caller's rows and the mark that it was sent in the last.
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
            draft_letters(&mut part, &letters);
            self.store().commit(part).await?;
            letters = rest;
        }
        draft_letters(&mut tx, &letters);
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
                    let event = message(sending, content)?;
                    for device in self.device_ids(reader, user).await? {
                        letters.push(Letter { inbox: (user.clone(), device), event: event.clone() });
                    }
                }
                Recipients::Devices(by_device) => {
                    let keys: Vec<_> =
                        by_device.keys().map(|device| (user.clone(), device.clone())).collect();
                    let there = reader.get_many::<Devices>(&keys).await?;
                    for ((inbox, content), device) in keys.into_iter().zip(by_device.values()).zip(there) {
                        if device.is_some() {
                            letters.push(Letter { inbox, event: message(sending, content)? });
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

    /// Removes the oldest messages of full inboxes.
    async fn make_room(&self, letters: &[Letter]) -> Result<(), Error> {
        let inboxes: Vec<_> = letters.iter().map(|letter| letter.inbox.clone()).collect();
        let counts = self.store().read().get_many::<ToDeviceCounts>(&inboxes).await?;
        for (inbox, count) in inboxes.iter().zip(counts) {
            let count = usize::try_from(count.unwrap_or(0)).unwrap_or(0);
            if count >= self.config().limits.to_device {
                self.trim(inbox).await?;
                tracing::warn!(user = %inbox.0, device = %inbox.1, "inbox full, the oldest messages are dropped");
            }
        }
        Ok(())
    }

    async fn trim(&self, inbox: &(OwnedUserId, OwnedDeviceId)) -> Result<(), Error> {
        retry!({
            let oldest = self.store().read().scan::<ToDevice>(inbox, Direction::Forward, TRIMMED).await?;
            self.remove_letters(inbox, oldest).await
        })
    }

    async fn remove_letters(
        &self,
        inbox: &(OwnedUserId, OwnedDeviceId),
        rows: Vec<(<ToDevice as Table>::Key, Vec<u8>)>,
    ) -> Result<(), Error> {
        let Some((first, event)) = rows.first() else { return Ok(()) };
        let mut tx = Tx::new();
        // Whoever removes the same messages at the same time finds the first one gone.
        tx.expect::<ToDevice>(first, Some(event));
        for (key, _) in &rows {
            tx.delete::<ToDevice>(key);
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
                let mut rows = self.store().read().scan::<ToDevice>(&inbox, Direction::Forward, PAGE).await?;
                let full = rows.len() == PAGE;
                rows.retain(|(key, _)| key.2 <= up_to.0);
                let more = full && rows.len() == PAGE;
                self.remove_letters(&inbox, rows).await?;
                Ok(more)
            })?;
            if !more {
                return Ok(());
            }
        }
    }
}

fn message(sending: &Sending<'_>, content: &RawValue) -> Result<Vec<u8>, Error> {
    #[derive(serde::Serialize)]
    struct Event<'a> {
        r#type: &'a str,
        sender: &'a UserId,
        content: &'a RawValue,
    }
    if !content.get().trim_start().starts_with('{') {
        return Err(Error::BadJson("content is an object".to_owned()));
    }
    let event = Event { r#type: sending.event_type, sender: sending.sender, content };
    let bytes = serde_json::to_vec(&event).map_err(|error| Error::BadJson(error.to_string()))?;
    if bytes.len() > LONGEST { Err(Error::TooLarge("to-device message")) } else { Ok(bytes) }
}

fn draft_letters(tx: &mut Tx, letters: &[Letter]) {
    for (index, letter) in (0_u32..).zip(letters) {
        tx.put_at_position::<ToDevice>(&letter.inbox, &index, &letter.event);
        tx.add::<ToDeviceCounts>(&letter.inbox, 1);
        let (user, device) = letter.inbox.clone();
        tx.log(LogEntry::ToDevice { user, device });
    }
}
