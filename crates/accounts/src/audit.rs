//! The audit log: who asked for what as an administrator, and what came of it.
//!
//! What is asked for is written down before it is done, and not done if it cannot be written down. Each entry names the
//! SHA-256 of the one before, so that none can be changed or taken out without all after it being made anew; who has
//! noted the last entry elsewhere sees that, too.

use chappe_store::{
    Json, Store, Tx,
    audit::{AuditEntries, AuditEntry, AuditHead, AuditMark, Audited},
};
use chappe_world::World;
use ring::digest::{SHA256, digest};
use ruma::UserId;
use serde_json::{Map, Value};

use crate::{Accounts, Error};

/// Characters of a text that are kept of what was asked for.
const TEXT_KEPT: usize = 500;
/// Elements of a list that are kept.
const LIST_KEPT: usize = 100;
/// Fields of an object that are kept, and characters of their names.
const FIELDS_KEPT: usize = 100;
const NAME_KEPT: usize = 100;
/// Values of one entry that are kept, those inside others included, and how deep inside: what is read again must not be
/// nested without end.
const VALUES_KEPT: usize = 1_000;
const DEPTH_KEPT: usize = 20;
/// Entries read at a time.
const PAGE: usize = 1_000;
/// Attempts at adding an entry when others do as well.
const ATTEMPTS: usize = 50;

/// The log: a handle, clones share it.
#[derive(Clone, Debug)]
pub struct Audit {
    world: World,
    store: Store,
}

/// What a check of the whole log found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every entry is bound to the one before, up to this one.
    Whole(AuditMark),
    /// This entry is missing, cannot be read, or is not the one that the next entry or the mark was bound to.
    Broken(u64),
}

impl Accounts {
    /// The log of what administrators do.
    pub fn audit(&self) -> Audit {
        Audit { world: self.world().clone(), store: self.store().clone() }
    }
}

impl Audit {
    /// Writes down that `by` asks for something, does it, and writes down what came of it. It is not done if it cannot be
    /// written down.
    pub async fn around<T, E: From<Error> + std::fmt::Display>(
        &self,
        by: &UserId,
        (action, details): (String, Value),
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let asked = self.asked(by, action, details).await?;
        let done = work.await;
        self.answered(by, asked, done.as_ref().err().map(ToString::to_string)).await;
        done
    }

    /// Writes down that `by` asks for something; gives the entry's number. Secrets in `details` are left out here.
    pub async fn asked(&self, by: &UserId, action: String, details: Value) -> Result<u64, Error> {
        let details = without_secrets(details, &mut { VALUES_KEPT }, DEPTH_KEPT);
        self.append(by, &Audited::Asked { action: cut(action, TEXT_KEPT), details }).await
    }

    /// Writes down what came of it. It has been done by then: a failure is logged.
    pub async fn answered(&self, by: &UserId, asked: u64, error: Option<String>) {
        let error = error.map(|error| cut(error, TEXT_KEPT));
        if let Err(error) = self.append(by, &Audited::Answered { asked, error }).await {
            tracing::error!(asked, %error, "the audit log lacks what came of an action");
        }
    }

    async fn append(&self, by: &UserId, what: &Audited) -> Result<u64, Error> {
        for _ in 0..ATTEMPTS {
            let head = self.store.read().get::<AuditHead>(&()).await?;
            let last = head.as_ref().map_or_else(AuditMark::default, |Json(mark)| *mark);
            let number = last.number + 1;
            let at = self.world.now();
            let entry = AuditEntry { number, at, by: by.to_owned(), before: last.hash, what: what.clone() };
            let text =
                serde_json::to_string(&entry).map_err(|_| chappe_store::Error::Corrupt("audit entry"))?;
            let mark = AuditMark { number, hash: hash_of(&text) };
            let mut tx = Tx::new();
            tx.expect::<AuditHead>(&(), head.as_ref());
            tx.put::<AuditEntries>(&number, &text).put::<AuditHead>(&(), &Json(mark));
            match self.store.commit(tx).await {
                Ok(_) => {
                    tracing::info!(mark = %Self::written(&mark), %by, "audit");
                    return Ok(number);
                }
                Err(chappe_store::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(chappe_store::Error::Conflict.into())
    }

    /// Up to `limit` entries below `before`, the newest first.
    pub async fn list(&self, before: u64, limit: usize) -> Result<Vec<AuditEntry>, Error> {
        let rows = self.store.read().scan_back::<AuditEntries>(&(), &before, limit).await?;
        let read = |(_, text): (u64, String)| serde_json::from_str(&text);
        let entries: Result<_, _> = rows.into_iter().map(read).collect();
        Ok(entries.map_err(|_| chappe_store::Error::Corrupt("audit entry"))?)
    }

    /// Looks at every entry, and at whether `known`, noted at some time, is among them.
    pub async fn verify(&self, known: Option<AuditMark>) -> Result<Verdict, Error> {
        let reader = self.store.read();
        let head = reader.get::<AuditHead>(&()).await?.map_or_else(AuditMark::default, |Json(mark)| mark);
        let mut last = AuditMark::default();
        loop {
            let page = reader.scan_from::<AuditEntries>(&(), &(last.number + 1), PAGE).await?;
            if page.is_empty() {
                break;
            }
            for (number, text) in page {
                let entry = serde_json::from_str::<AuditEntry>(&text).ok();
                let in_place = number == last.number + 1;
                let Some(entry) = entry.filter(|entry| in_place && entry.number == number) else {
                    return Ok(Verdict::Broken(last.number + 1));
                };
                if entry.before != last.hash {
                    return Ok(Verdict::Broken(last.number));
                }
                last = AuditMark { number, hash: hash_of(&text) };
                if known.is_some_and(|known| known.number == number && known.hash != last.hash) {
                    return Ok(Verdict::Broken(number));
                }
            }
        }
        let expected = known.filter(|known| known.number > last.number);
        if expected.is_some() || last.number < head.number {
            return Ok(Verdict::Broken(last.number + 1));
        }
        Ok(if last == head { Verdict::Whole(head) } else { Verdict::Broken(last.number) })
    }
}

impl Audit {
    /// A mark as operators note it: `NUMBER:HASH`.
    pub fn written(mark: &AuditMark) -> String {
        format!("{}:{}", mark.number, hex(&mark.hash))
    }

    /// Reads what [`Audit::written`] gave; nothing where it is no mark.
    pub fn read_mark(text: &str) -> Option<AuditMark> {
        let (number, hash) = text.split_once(':')?;
        let mark = serde_json::json!({ "number": number.parse::<u64>().ok()?, "hash": hash });
        serde_json::from_value(mark).ok()
    }
}

fn hash_of(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    hash
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The same without what only its owner should know, and without what is long: `left` values at most, nested so deep at most.
fn without_secrets(details: Value, left: &mut usize, depth: usize) -> Value {
    let (Some(fewer), Some(depth)) = (left.checked_sub(1), depth.checked_sub(1)) else {
        return "(left out: too much)".into();
    };
    *left = fewer;
    match details {
        Value::Object(fields) => {
            let (all, mut kept) = (fields.len(), Map::new());
            for (name, value) in fields.into_iter().take(FIELDS_KEPT.min(*left)) {
                let value = if is_secret(&name) && !value.is_null() {
                    "(left out)".into()
                } else {
                    without_secrets(value, left, depth)
                };
                kept.insert(cut(name, NAME_KEPT), value);
            }
            let more = all.saturating_sub(kept.len());
            if more > 0 {
                kept.insert("(more)".to_owned(), more.into());
            }
            Value::Object(kept)
        }
        Value::Array(list) => {
            let all = list.len();
            let kept = list.into_iter().take(LIST_KEPT.min(*left));
            let mut kept: Vec<Value> = kept.map(|value| without_secrets(value, left, depth)).collect();
            let more = all.saturating_sub(kept.len());
            if more > 0 {
                kept.push(format!("(and {more} more)").into());
            }
            Value::Array(kept)
        }
        Value::String(text) => Value::String(cut(text, TEXT_KEPT)),
        other => other,
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    ["password", "token", "secret", "mac", "nonce"].iter().any(|word| name.contains(word))
}

/// A long text's beginning and hash.
fn cut(text: String, kept: usize) -> String {
    match text.char_indices().nth(kept) {
        None => text,
        Some((end, _)) => format!("{}… (SHA-256 {})", &text[..end], hex(&hash_of(&text))),
    }
}

#[cfg(test)]
mod tests {
    use chappe_kv::{Db, Memory};
    use chappe_world::{Fake, FakeNet};
    use ruma::user_id;
    use serde_json::json;

    use super::*;

    fn log() -> Audit {
        let world = World::fake(Fake::new("hs", 1, &FakeNet::default()));
        Audit { world, store: Store::new(Db::new(Memory::default())) }
    }

    #[test]
    fn secrets_and_long_texts_are_left_out() {
        let long = "é".repeat(TEXT_KEPT + 1);
        let given = json!({
            "users": { "create": { "password": "p4ss", "admin": true, "display_name": null } },
            "new_password": "p4ss", "access_token": ["t0ken"], "text": long, "list": vec![1; LIST_KEPT + 2],
        });
        let kept = without_secrets(given, &mut { VALUES_KEPT }, DEPTH_KEPT);
        let text = kept.to_string();
        assert!(!text.contains("p4ss") && !text.contains("t0ken"), "{text}");
        assert_eq!(kept["users"]["create"]["admin"], true);
        assert!(kept["text"].as_str().unwrap().chars().count() < TEXT_KEPT + 100);
        assert_eq!(kept["list"].as_array().unwrap().last().unwrap(), "(and 2 more)");
    }

    #[test]
    fn an_entry_is_bounded_however_it_is_made() {
        let fields = |n: usize, value: Value| -> Value {
            (0..n).map(|n| (format!("{n:07}"), value.clone())).collect::<Map<_, _>>().into()
        };
        let mut deep = json!(1);
        for _ in 0..100 {
            deep = json!([deep]);
        }
        let given = json!({
            "many": fields(5_000, json!(1)), "within": fields(90, fields(90, json!("é".repeat(1_000)))),
            "n".repeat(10_000): 1, "deep": deep,
        });
        let kept = without_secrets(given, &mut { VALUES_KEPT }, DEPTH_KEPT);
        assert_eq!(kept["many"]["(more)"], 4_900);
        assert!(kept.as_object().unwrap().keys().all(|name| name.chars().count() < NAME_KEPT + 100));
        assert!(kept.to_string().len() < VALUES_KEPT * (2 * TEXT_KEPT + 200));
        let nested = (0..2_000).fold(json!(1), |value, _| json!({ "a": value, "b": 1 }));
        assert!(without_secrets(nested, &mut { VALUES_KEPT }, DEPTH_KEPT).to_string().len() < 1_000);
    }

    #[tokio::test]
    async fn a_changed_missing_or_added_entry_is_found() {
        let log = log();
        assert_eq!(log.verify(None).await.unwrap(), Verdict::Whole(AuditMark::default()));
        let by = user_id!("@a:x.fr");
        for n in 0..3 {
            let asked = log.asked(by, format!("act {n}"), json!({})).await.unwrap();
            log.answered(by, asked, (n == 1).then(|| "no".to_owned())).await;
        }
        let Verdict::Whole(mark) = log.verify(None).await.unwrap() else { panic!("it is whole") };
        assert_eq!(mark.number, 6);
        assert_eq!(Audit::read_mark(&Audit::written(&mark)).unwrap(), mark);
        assert_eq!(log.verify(Some(mark)).await.unwrap(), Verdict::Whole(mark));
        let text = |n: u64| {
            let store = log.store.clone();
            async move { store.read().get::<AuditEntries>(&n).await.unwrap().unwrap() }
        };
        let (third, last) = (text(3).await, text(6).await);
        for (number, instead, broken) in [
            (3, Some(third.replace("act 1", "act 9")), 3),
            (3, None, 3),
            (3, Some(last.clone()), 3),
            (6, Some(last.replace("@a:", "@b:")), 6),
            (6, None, 6),
            (7, Some(last.replace("\"number\":6", "\"number\":7")), 6),
        ] {
            let mut tx = Tx::new();
            match &instead {
                Some(text) => tx.put::<AuditEntries>(&number, text),
                None => tx.delete::<AuditEntries>(&number),
            };
            log.store.commit(tx).await.unwrap();
            assert_eq!(log.verify(None).await.unwrap(), Verdict::Broken(broken), "{number} {instead:?}");
            let mut tx = Tx::new();
            tx.put::<AuditEntries>(&3, &third).put::<AuditEntries>(&6, &last).delete::<AuditEntries>(&7);
            log.store.commit(tx).await.unwrap();
        }
        let elsewhere = AuditMark { hash: [7; 32], ..mark };
        assert_eq!(log.verify(Some(elsewhere)).await.unwrap(), Verdict::Broken(6));
        let later = AuditMark { number: 9, ..mark };
        assert_eq!(log.verify(Some(later)).await.unwrap(), Verdict::Broken(7));
    }

    #[tokio::test]
    async fn entries_added_at_the_same_time_all_have_their_place() {
        let log = log();
        let by = user_id!("@a:x.fr");
        let adding = (0..20).map(|n| log.asked(by, format!("{n}"), json!({})));
        let mut numbers: Vec<u64> =
            futures_util::future::join_all(adding).await.into_iter().map(Result::unwrap).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
        assert!(matches!(log.verify(None).await.unwrap(), Verdict::Whole(mark) if mark.number == 20));
    }
}
