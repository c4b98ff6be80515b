//! Push rules: one ruleset for each user, kept as their account data `m.push_rules`.

use chappe_rules::push::{Additions, defaults_with};
use chappe_store::{Reader, Tx, accounts_data::AccountData};
use ruma::{
    OwnedRoomId, RoomId, UserId,
    push::{Action, AnyPushRuleRef, ConditionalPushRule, NewPushRule, NewSimplePushRule, RuleKind, Ruleset},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::{
    Accounts, Error,
    account_data::{Scope, TAGS},
    retry::retry,
};

/// The type of the account data.
pub(crate) const PUSH_RULES: &str = "m.push_rules";
/// Bytes of one rule, its id included.
const RULE_BYTES: usize = 8_192;

#[derive(Default, Serialize, Deserialize)]
struct Content {
    global: Ruleset,
}

impl Accounts {
    /// A user's rules: the server's own as they stand now, with the user's changes.
    pub async fn push_rules(&self, reader: &Reader<'_>, user: &UserId) -> Result<Ruleset, Error> {
        let key = (user.to_owned(), String::new(), PUSH_RULES.to_owned());
        let Some(found) = reader.get::<AccountData>(&key).await? else {
            return Ok(self.default_push_rules(user));
        };
        let content = read(&found.value).map_err(|_| chappe_store::Error::Corrupt("push rules"))?;
        let (mut rules, defaults) = (content.global, self.default_push_rules(user));
        // Rules of this kind are the server's alone, and ruma's update passes them over.
        let as_left = |mut rule: ConditionalPushRule| {
            if let Some(left) = rules.postcontent.get(rule.rule_id.as_str()) {
                rule.enabled = left.enabled;
                rule.actions.clone_from(&left.actions);
            }
            rule
        };
        let postcontent = defaults.postcontent.iter().cloned().map(as_left).collect();
        rules.postcontent = postcontent;
        rules.update_with_server_default(defaults);
        Ok(rules)
    }

    fn default_push_rules(&self, user: &UserId) -> Ruleset {
        let config = self.config();
        let additions = Additions {
            guessed_mentions: config.guess_mentions,
            encrypted_events: config.push_encrypted_events,
            followed_threads: config.thread_subscriptions,
        };
        defaults_with(user, additions)
    }

    /// The rules as the content of the account data `m.push_rules`.
    pub(crate) async fn push_rules_content(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
    ) -> Result<Box<RawValue>, Error> {
        let global = self.push_rules(reader, user).await?;
        serde_json::value::to_raw_value(&Content { global })
            .map_err(|error| Error::BadJson(error.to_string()))
    }

    /// Adds or replaces a rule, placed after or before another one.
    pub async fn set_push_rule(
        &self,
        user: &UserId,
        rule: NewPushRule,
        after: Option<&str>,
        before: Option<&str>,
    ) -> Result<(), Error> {
        self.edit_rules(user, |rules| place(rules, rule.clone(), after, before)).await
    }

    /// Removes a rule of the user's own. [`Error::NotFound`]; [`Error::Invalid`] for the server's own.
    pub async fn delete_push_rule(&self, user: &UserId, kind: RuleKind, rule_id: &str) -> Result<(), Error> {
        self.edit_rules(user, |rules| {
            if rules.get(kind.clone(), rule_id).is_none() {
                return Err(Error::NotFound("push rule"));
            }
            rules.remove(kind.clone(), rule_id).map_err(|error| Error::invalid(error.to_string()))
        })
        .await
    }

    /// Switches a rule on or off. [`Error::NotFound`].
    pub async fn enable_push_rule(
        &self,
        user: &UserId,
        kind: RuleKind,
        rule_id: &str,
        enabled: bool,
    ) -> Result<(), Error> {
        self.edit_rules(user, |rules| {
            rules.set_enabled(kind.clone(), rule_id, enabled).map_err(|_| Error::NotFound("push rule"))
        })
        .await
    }

    /// Sets what a rule does. [`Error::NotFound`].
    pub async fn set_push_actions(
        &self,
        user: &UserId,
        kind: RuleKind,
        rule_id: &str,
        actions: Vec<Action>,
    ) -> Result<(), Error> {
        self.edit_rules(user, |rules| {
            rules
                .set_actions(kind.clone(), rule_id, actions.clone())
                .map_err(|_| Error::NotFound("push rule"))
        })
        .await
    }

    /// Copies the push rules and tags of a room to its successor, when the user goes along with a room upgrade.
    pub async fn copy_room_settings(&self, user: &UserId, from: &RoomId, to: &RoomId) -> Result<(), Error> {
        retry!({
            let reader = self.store().read();
            let mut tx = Tx::new();
            if let Some(tags) = self.account_data(&reader, user, Scope::Room(from), TAGS).await? {
                self.draft_account_data(&reader, &mut tx, user, Scope::Room(to), TAGS, tags.get()).await?;
            }
            let mut global = self.push_rules(&reader, user).await?;
            if let Some(rule) = global.room.get(from.as_str()) {
                let copy: NewSimplePushRule<OwnedRoomId> =
                    NewSimplePushRule::new(to.to_owned(), rule.actions.clone());
                let placed = global.insert(NewPushRule::Room(copy), None, None);
                placed.map_err(|error| Error::invalid(error.to_string()))?;
                self.draft_rules(&reader, &mut tx, user, global).await?;
            }
            drop(reader);
            if !tx.is_empty() {
                self.store().commit(tx).await?;
            }
            Ok(())
        })
    }

    async fn draft_rules(
        &self,
        reader: &Reader<'_>,
        tx: &mut Tx,
        user: &UserId,
        global: Ruleset,
    ) -> Result<(), Error> {
        self.check_rules(&global)?;
        let content =
            serde_json::to_string(&Content { global }).map_err(|error| Error::BadJson(error.to_string()))?;
        self.draft_account_data(reader, tx, user, Scope::Global, PUSH_RULES, &content).await
    }

    async fn edit_rules(
        &self,
        user: &UserId,
        edit: impl Fn(&mut Ruleset) -> Result<(), Error> + Send + Sync,
    ) -> Result<(), Error> {
        retry!({
            let reader = self.store().read();
            let mut global = self.push_rules(&reader, user).await?;
            edit(&mut global)?;
            let mut tx = Tx::new();
            self.draft_rules(&reader, &mut tx, user, global).await?;
            drop(reader);
            self.store().commit(tx).await?;
            Ok(())
        })
    }

    fn check_rules(&self, rules: &Ruleset) -> Result<(), Error> {
        let own = rules.iter().filter(|rule| !rule.is_server_default()).count();
        if own > self.config().limits.push_rules {
            return Err(Error::TooMany("push rules"));
        }
        let size = |bytes: Result<String, serde_json::Error>| bytes.map_or(usize::MAX, |text| text.len());
        let conditional = rules.override_.iter().chain(&rules.postcontent).chain(&rules.underride);
        let conditional = conditional.map(|rule| size(serde_json::to_string(rule)));
        let content = rules.content.iter().map(|rule| size(serde_json::to_string(rule)));
        let room = rules.room.iter().map(|rule| size(serde_json::to_string(rule)));
        let sender = rules.sender.iter().map(|rule| size(serde_json::to_string(rule)));
        if conditional.chain(content).chain(room).chain(sender).any(|bytes| bytes > RULE_BYTES) {
            return Err(Error::TooLarge("push rule"));
        }
        Ok(())
    }
}

/// Rules as they were kept. A condition of a kind that was unknown then may have to be of another form by now: a rule that
/// cannot be read for that is left out.
fn read(bytes: &[u8]) -> Result<Content, serde_json::Error> {
    serde_json::from_slice(bytes).or_else(|_| {
        let mut content: Value = serde_json::from_slice(bytes)?;
        for kind in ["override", "postcontent", "underride"] {
            let rules = content.pointer_mut(&format!("/global/{kind}")).and_then(Value::as_array_mut);
            if let Some(rules) = rules {
                rules.retain(|rule| ConditionalPushRule::deserialize(rule).is_ok());
            }
        }
        serde_json::from_value(content)
    })
}

/// Adds a rule, or replaces one. What moves is taken out first: ruma would count the place that it leaves.
fn place(
    rules: &mut Ruleset,
    rule: NewPushRule,
    after: Option<&str>,
    before: Option<&str>,
) -> Result<(), Error> {
    let (kind, id) = (rule.kind(), rule.rule_id().to_owned());
    if [after, before].contains(&Some(id.as_str())) {
        return Err(Error::invalid("a rule is not placed beside itself"));
    }
    let moves = after.is_some() || before.is_some();
    let old = rules.get(kind.clone(), &id).filter(|old| moves && !old.is_server_default());
    let was_enabled = old.map(AnyPushRuleRef::enabled);
    if was_enabled.is_some() {
        rules.remove(kind.clone(), &id).map_err(|error| Error::invalid(error.to_string()))?;
    }
    rules.insert(rule, after, before).map_err(|error| Error::invalid(error.to_string()))?;
    if was_enabled == Some(false) {
        rules.set_enabled(kind, &id, false).map_err(|_| Error::NotFound("push rule"))?;
    }
    Ok(())
}
