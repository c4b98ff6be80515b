//! The allow-list: rules in the store, a snapshot in memory that every check reads.

use std::sync::Arc;

use arc_swap::ArcSwap;
use chappe_store::{
    Json, Store, Tx,
    identity::{AllowRule, AllowRules},
};
use chappe_world::World;
use tokio::sync::Mutex;

use crate::{Email, Error, Rule, Rules};

/// Rows read in one round trip.
const PAGE: usize = 1000;
/// How often an import starts again when others change the list at the same time.
const TRIES: usize = 20;

/// Who may sign up with an e-mail address. A handle; clones share the snapshot.
#[derive(Clone, Debug)]
pub struct AllowList {
    store: Store,
    world: World,
    rules: Arc<ArcSwap<Rules>>,
    /// Held while the snapshot is made, so that an older one never replaces a newer one.
    refreshing: Arc<Mutex<()>>,
}

/// A rule with what is kept beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedRule {
    /// The rule.
    pub rule: Rule,
    /// When it was added, in milliseconds since 1970.
    pub added_at: u64,
    /// Free text of whoever added it.
    pub note: String,
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Rules that were not there.
    pub added: usize,
    /// Rules that were.
    pub known: usize,
}

impl AllowList {
    /// Reads the list from the store.
    pub async fn open(store: Store, world: World) -> Result<Self, Error> {
        let list = Self { store, world, rules: Arc::default(), refreshing: Arc::default() };
        list.refresh().await?;
        Ok(list)
    }

    /// The rule that lets an address in.
    pub fn check(&self, email: &Email) -> Option<Rule> {
        self.rules.load().matching(email)
    }

    /// Adds a rule; `false` when it was there already (its note stays).
    pub async fn add(&self, rule: &Rule, note: &str) -> Result<bool, Error> {
        let mut tx = Tx::default();
        let value = AllowRule { added_at: self.world.now(), note: note.to_owned() };
        tx.expect_absent::<AllowRules>(&rule.to_string()).put::<AllowRules>(&rule.to_string(), &Json(value));
        let added = self.commit(tx).await?;
        if added {
            tracing::info!(%rule, "rule added to the allow-list");
        }
        Ok(added)
    }

    /// Removes a rule; `false` when it was not there. Accounts that exist stay.
    pub async fn remove(&self, rule: &Rule) -> Result<bool, Error> {
        let found = self.store.read().get::<AllowRules>(&rule.to_string()).await?;
        if found.is_none() {
            return Ok(false);
        }
        let mut tx = Tx::default();
        tx.expect::<AllowRules>(&rule.to_string(), found.as_ref()).delete::<AllowRules>(&rule.to_string());
        let removed = self.commit(tx).await?;
        if removed {
            tracing::info!(%rule, "rule removed from the allow-list");
        }
        Ok(removed)
    }

    /// All rules in the order of their text.
    pub async fn list(&self) -> Result<Vec<ListedRule>, Error> {
        let reader = self.store.read();
        let mut listed = Vec::new();
        let mut from = String::new();
        loop {
            let rows = reader.scan_from::<AllowRules>(&(), &from, PAGE).await?;
            let whole = rows.len() < PAGE;
            for (text, Json(kept)) in rows {
                from = format!("{text}\u{1}");
                let rule = text.parse().map_err(|_| chappe_store::Error::Corrupt("allow-list rule"))?;
                listed.push(ListedRule { rule, added_at: kept.added_at, note: kept.note });
            }
            if whole {
                return Ok(listed);
            }
        }
    }

    /// Adds the rules of a text: one a line, `#` begins a comment. All lines are right or nothing is added.
    pub async fn import(&self, text: &str) -> Result<Imported, Error> {
        let mut rules = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let rule = line.split('#').next().unwrap_or_default().trim();
            if rule.is_empty() {
                continue;
            }
            let rule = rule.parse().map_err(|error| Error::InvalidImport { line: index + 1, error })?;
            rules.push(rule);
        }
        rules.sort();
        rules.dedup();
        for _ in 0..TRIES {
            if let Some(imported) = self.add_all(&rules).await? {
                return Ok(imported);
            }
        }
        Err(chappe_store::Error::Conflict.into())
    }

    /// Adds those that are not there yet; `None` when another writer was first.
    async fn add_all(&self, rules: &[Rule]) -> Result<Option<Imported>, Error> {
        let keys: Vec<String> = rules.iter().map(Rule::to_string).collect();
        let found = self.store.read().get_many::<AllowRules>(&keys).await?;
        let value = Json(AllowRule { added_at: self.world.now(), note: String::new() });
        let (mut tx, mut imported) = (Tx::default(), Imported::default());
        for (key, known) in keys.iter().zip(found) {
            if known.is_some() {
                imported.known += 1;
                continue;
            }
            imported.added += 1;
            tx.expect_absent::<AllowRules>(key).put::<AllowRules>(key, &value);
        }
        if imported.added > 0 && !self.commit(tx).await? {
            return Ok(None);
        }
        tracing::info!(added = imported.added, "rules imported into the allow-list");
        Ok(Some(imported))
    }

    /// Reads the list again; whoever changes it through this handle need not.
    pub async fn refresh(&self) -> Result<(), Error> {
        let _alone = self.refreshing.lock().await;
        let rules: Rules = self.list().await?.into_iter().map(|listed| listed.rule).collect();
        self.rules.store(Arc::new(rules));
        Ok(())
    }

    /// Commits a change of one rule; `false` when somebody else made the same change first.
    async fn commit(&self, tx: Tx) -> Result<bool, Error> {
        let changed = match self.store.commit(tx).await {
            Ok(_) => true,
            Err(chappe_store::Error::Conflict) => false,
            Err(error) => return Err(error.into()),
        };
        self.refresh().await?;
        Ok(changed)
    }
}
