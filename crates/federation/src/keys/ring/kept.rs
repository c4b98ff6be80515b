//! What is kept of the documents that are found.

use std::collections::BTreeSet;

use chappe_store::{
    Direction, Error, Json, Tx,
    server_keys::{KeyDocument, KeyDocuments, ServerKey, ServerKeys},
};
use ruma::ServerName;

use super::KeyRing;
use crate::keys::{Document, document::MAX_KEYS, is_plain, text_of};

/// How often a document is judged, as others of its server come meanwhile.
const ATTEMPTS: usize = 10;
/// So many keys are kept that a server does not name any more, and so many of it altogether: it may have others each time that
/// it is asked.
const UNNAMED: usize = 64;
const KEYS: usize = 2 * MAX_KEYS + UNNAMED;
/// Keys that are looked through at once for those that go.
const PAGE: usize = 1_000;

/// Where a document came from.
#[derive(Clone, Copy)]
pub(super) enum Source {
    Itself,
    Notary,
}

impl KeyRing {
    /// Takes in what a document says. What a server says itself counts.
    pub(super) async fn keep(&self, document: &Document, source: Source) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            let tx = match source {
                Source::Itself => self.own_word(document).await?,
                Source::Notary => self.hearsay(document).await?,
            };
            match self.0.store.commit(tx).await {
                Ok(_) => {
                    self.note_kept();
                    return Ok(());
                }
                Err(Error::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Conflict)
    }

    /// All that a server says itself. Of the keys that it does not name any more those stay that end last.
    async fn own_word(&self, document: &Document) -> Result<Tx, Error> {
        let (mut tx, server) = (self.replacement(document, &document.keys), &document.server);
        let named: BTreeSet<String> = document.ids().collect();
        let rows = self.0.store.read().scan::<ServerKeys>(server, Direction::Forward, PAGE).await?;
        let unnamed = rows.into_iter().filter(|((_, id), _)| !named.contains(id));
        let mut unnamed: Vec<_> = unnamed.map(|(place, Json(key))| (key.valid_until, place)).collect();
        unnamed.sort_unstable();
        unnamed.truncate(unnamed.len().saturating_sub(UNNAMED));
        for (_, place) in &unnamed {
            tx.delete::<ServerKeys>(place);
        }
        Ok(tx)
    }

    /// What a document says, with these of its keys.
    fn replacement<'a>(
        &self,
        document: &Document,
        keys: impl IntoIterator<Item = &'a (String, ServerKey)>,
    ) -> Tx {
        let mut tx = Tx::new();
        for (id, key) in keys {
            tx.put::<ServerKeys>(&(document.server.clone(), id.clone()), &Json(key.clone()));
        }
        // The text is for those who ask this server as a notary: others get nothing under which it does not sign.
        let json = if is_plain(&document.object) { text_of(&document.object) } else { String::new() };
        let kept = KeyDocument { fetched_at: self.0.world.now(), valid_until: document.valid_until, json };
        tx.put::<KeyDocuments>(&document.server, &Json(kept));
        tx
    }

    /// What counts of a notary's document while nothing newer is kept. Where more is known of the server, by a newer document, or
    /// because a key that signed this one is old by now, these are the unknown keys alone, as old ones. No kept key goes for those:
    /// where there are as many as may be, they are left out.
    async fn hearsay(&self, document: &Document) -> Result<Tx, Error> {
        let server = &document.server;
        let places: Vec<_> = document.keys.iter().map(|(id, _)| (server.clone(), id.clone())).collect();
        let reader = self.0.store.read();
        let (kept, known) =
            reader.get_both::<KeyDocuments, ServerKeys>(std::slice::from_ref(server), &places).await?;
        let kept = kept.into_iter().next().flatten();
        let here = reader.scan::<ServerKeys>(server, Direction::Forward, KEYS).await?.len();
        let is_older = kept.as_ref().is_some_and(|Json(kept)| kept.valid_until > document.valid_until);
        let keys = || document.keys.iter().zip(&known);
        let is_outdated = is_older
            || keys().any(|((_, key), known)| !key.old && matches!(known, Some(Json(known)) if known.old));
        let unknown = keys().filter(|(_, known)| known.is_none()).map(|(key, _)| key);
        let unknown = unknown.take(KEYS.saturating_sub(here));
        let mut tx = if is_outdated {
            self.as_old(server, unknown)
        } else {
            let known = keys().filter(|(_, known)| known.is_some()).map(|(key, _)| key);
            self.replacement(document, known.chain(unknown))
        };
        tx.expect::<KeyDocuments>(server, kept.as_ref());
        Ok(tx)
    }

    /// Keys of a server, as old ones.
    fn as_old<'a>(&self, server: &ServerName, keys: impl Iterator<Item = &'a (String, ServerKey)>) -> Tx {
        let (mut tx, now) = (Tx::new(), self.0.world.now());
        for (id, key) in keys {
            let old = ServerKey { key: key.key.clone(), valid_until: key.valid_until.min(now), old: true };
            tx.put::<ServerKeys>(&(server.to_owned(), id.clone()), &Json(old));
        }
        tx
    }
}
