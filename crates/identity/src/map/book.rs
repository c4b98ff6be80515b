//! The map on disk: entries and patterns in tables, a compiled snapshot in memory that every question reads.

use std::{collections::BTreeMap, str::FromStr, sync::Arc};

use arc_swap::ArcSwap;
use chappe_store::{
    Json, Store, Tx,
    identity_service::{IdentityHeads, MapEntries, MapPattern, MapPatterns, MapTarget},
};
use tokio::sync::Mutex;

use super::{
    MOST_ENTRIES, MOST_PATTERNS, Map, MapLayer, Whom, compile,
    file::{read, write},
};
use crate::Error;

/// The head record that every writer of the map replaces.
const HEAD: &str = "map";
/// How often a change starts again when another writer was first.
const TRIES: usize = 20;

/// The map of this server. A handle; clones share the snapshot.
#[derive(Clone, Debug)]
pub struct MapBook {
    store: Store,
    map: Arc<ArcSwap<Map>>,
    /// What the signed list of the network says; it is kept with the list and not here.
    network: Arc<ArcSwap<MapLayer>>,
    /// Held while the snapshot is made, so that an older one never replaces a newer one.
    refreshing: Arc<Mutex<()>>,
}

/// A line of the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapEntry {
    /// An address, a domain, sub-domains, or all.
    Entry(Whom, MapTarget),
    /// A pattern with its place, counted from 1.
    Pattern(usize, MapPattern),
}

/// All rows of the map as they are on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) entries: Vec<(String, MapTarget)>,
    pub(super) patterns: Vec<MapPattern>,
}

impl MapBook {
    /// Reads the map from the store.
    pub async fn open(store: Store) -> Result<Self, Error> {
        let book = Self { store, map: Arc::default(), network: Arc::default(), refreshing: Arc::default() };
        book.refresh().await?;
        Ok(book)
    }

    /// The map as it is now.
    pub fn map(&self) -> Arc<Map> {
        self.map.load_full()
    }

    /// Maps an address, a domain, its sub-domains or all; what was said of it before is replaced.
    pub async fn put(&self, whom: &Whom, target: &MapTarget) -> Result<(), Error> {
        self.put_all(&[(whom.clone(), target.clone())]).await
    }

    /// The same for several at once, the last one of each.
    pub async fn put_all(&self, entries: &[(Whom, MapTarget)]) -> Result<(), Error> {
        let new: BTreeMap<String, &MapTarget> =
            entries.iter().map(|(whom, target)| (whom.to_string(), target)).collect();
        self.change(|contents| {
            contents.entries.retain(|(known, _)| !new.contains_key(known));
            contents.entries.extend(new.iter().map(|(whom, target)| (whom.clone(), (*target).clone())));
            Ok(())
        })
        .await
    }

    /// Takes such an entry out; `false` when it was not there.
    pub async fn remove(&self, whom: &Whom) -> Result<bool, Error> {
        let key = whom.to_string();
        let known = self.contents().await?.0.entries.iter().any(|(known, _)| *known == key);
        if known {
            self.change(|contents| {
                contents.entries.retain(|(known, _)| *known != key);
                Ok(())
            })
            .await?;
        }
        Ok(known)
    }

    /// Adds a pattern at a place, counted from 1; behind all others without one.
    pub async fn put_pattern(&self, pattern: &MapPattern, place: Option<usize>) -> Result<(), Error> {
        compile(&pattern.regex)?;
        self.change(|contents| {
            let last = contents.patterns.len();
            let index = place.map_or(last, |place| place.saturating_sub(1)).min(last);
            contents.patterns.insert(index, pattern.clone());
            Ok(())
        })
        .await
    }

    /// Takes a pattern out by its text; `false` when it was not there.
    pub async fn remove_pattern(&self, regex: &str) -> Result<bool, Error> {
        let known = self.contents().await?.0.patterns.iter().any(|pattern| pattern.regex == regex);
        if known {
            self.change(|contents| {
                contents.patterns.retain(|pattern| pattern.regex != regex);
                Ok(())
            })
            .await?;
        }
        Ok(known)
    }

    /// Every line: entries in the order of their text, then patterns in their own.
    pub async fn list(&self) -> Result<Vec<MapEntry>, Error> {
        let (contents, _) = self.contents().await?;
        let mut lines = Vec::with_capacity(contents.entries.len() + contents.patterns.len());
        for (key, target) in contents.entries {
            let whom = Whom::from_str(&key).map_err(|_| chappe_store::Error::Corrupt("entry of the map"))?;
            lines.push(MapEntry::Entry(whom, target));
        }
        let numbered = contents.patterns.into_iter().enumerate();
        lines.extend(numbered.map(|(index, pattern)| MapEntry::Pattern(index + 1, pattern)));
        Ok(lines)
    }

    /// Replaces the whole map by a file of the form `info.yaml`; gives how many entries and patterns it has.
    /// All of it is right or nothing changes.
    pub async fn import(&self, yaml: &str) -> Result<(usize, usize), Error> {
        let new = read(yaml)?;
        self.change(|contents| {
            *contents = new.clone();
            Ok(())
        })
        .await?;
        Ok((new.entries.len(), new.patterns.len()))
    }

    /// The map as a file of the form `info.yaml`, with the same answer for every address.
    pub async fn export(&self) -> Result<String, Error> {
        Ok(write(&self.contents().await?.0))
    }

    /// Reads the map again; whoever changes it through this handle need not.
    pub async fn refresh(&self) -> Result<(), Error> {
        let _alone = self.refreshing.lock().await;
        let (contents, _) = self.contents().await?;
        let local = MapLayer::new(contents.entries, contents.patterns)?;
        self.map.store(Arc::new(Map { network: self.network.load_full(), local }));
        Ok(())
    }

    /// Takes what the network says of addresses in place of what it said before.
    pub async fn follow_network(&self, says: MapLayer) -> Result<(), Error> {
        self.network.store(Arc::new(says));
        self.refresh().await
    }

    async fn contents(&self) -> Result<(Contents, Option<Vec<u8>>), Error> {
        let reader = self.store.read();
        let head = reader.get::<IdentityHeads>(&HEAD.to_owned()).await?;
        let entries = reader.scan_all::<MapEntries>(&()).await?;
        let patterns = reader.scan_all::<MapPatterns>(&()).await?;
        let entries = entries.into_iter().map(|(key, Json(target))| (key, target)).collect();
        let patterns = patterns.into_iter().map(|(_, Json(pattern))| pattern).collect();
        Ok((Contents { entries, patterns }, head))
    }

    /// Edits the map and writes what differs, in one batch.
    async fn change(
        &self,
        edit: impl Fn(&mut Contents) -> Result<(), Error> + Send + Sync,
    ) -> Result<(), Error> {
        for _ in 0..TRIES {
            let (before, head) = self.contents().await?;
            let mut after = before.clone();
            edit(&mut after)?;
            if after.entries.len() > MOST_ENTRIES || after.patterns.len() > MOST_PATTERNS {
                return Err(Error::MapTooLarge);
            }
            let mut tx = Tx::new();
            let revision =
                head.as_deref().and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
            tx.expect::<IdentityHeads>(&HEAD.to_owned(), head.as_ref());
            tx.put::<IdentityHeads>(&HEAD.to_owned(), &(revision + 1).to_be_bytes().to_vec());
            rewrite(&mut tx, &before, &after);
            match self.store.commit(tx).await {
                Err(chappe_store::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    let (entries, patterns) = (after.entries.len(), after.patterns.len());
                    tracing::info!(entries, patterns, "the map of addresses was changed");
                    return self.refresh().await;
                }
            }
        }
        Err(chappe_store::Error::Conflict.into())
    }
}

fn rewrite(tx: &mut Tx, before: &Contents, after: &Contents) {
    let by_key =
        |contents: &Contents| -> BTreeMap<String, MapTarget> { contents.entries.iter().cloned().collect() };
    let (old, new) = (by_key(before), by_key(after));
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        tx.delete::<MapEntries>(key);
    }
    for (key, target) in &new {
        if old.get(key) != Some(target) {
            tx.put::<MapEntries>(key, &Json(target.clone()));
        }
    }
    if before.patterns == after.patterns {
        return;
    }
    for place in (1_u32..).take(before.patterns.len()).skip(after.patterns.len()) {
        tx.delete::<MapPatterns>(&place);
    }
    for (place, pattern) in (1_u32..).zip(&after.patterns) {
        tx.put::<MapPatterns>(&place, &Json(pattern.clone()));
    }
}
