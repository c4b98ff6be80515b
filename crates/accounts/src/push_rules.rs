//! Push rules: one ruleset for each user, kept as their account data `m.push_rules`.

use chappe_store::Reader;
use ruma::{UserId, push::{Action, NewPushRule, RuleKind, Ruleset}};

use crate::{Accounts, Error, soon};

impl Accounts {
    /// A user's rules: the server's own as they stand now, with the user's changes.
    pub async fn push_rules(&self, reader: &Reader<'_>, user: &UserId) -> Result<Ruleset, Error> { soon() }
    /// Adds or replaces a rule, placed after or before another one.
    pub async fn set_push_rule(&self, user: &UserId, rule: NewPushRule, after: Option<&str>, before: Option<&str>) -> Result<(), Error> { soon() }
    /// Removes a rule of the user's own.
    pub async fn delete_push_rule(&self, user: &UserId, kind: RuleKind, rule_id: &str) -> Result<(), Error> { soon() }
    /// Switches a rule on or off.
    pub async fn enable_push_rule(&self, user: &UserId, kind: RuleKind, rule_id: &str, enabled: bool) -> Result<(), Error> { soon() }
    /// Sets what a rule does.
    pub async fn set_push_actions(&self, user: &UserId, kind: RuleKind, rule_id: &str, actions: Vec<Action>) -> Result<(), Error> { soon() }
    /// Copies the rules of a room to its successor (spec §11.38 room upgrades), tags as well.
    pub async fn copy_room_settings(&self, user: &UserId, from: &ruma::RoomId, to: &ruma::RoomId) -> Result<(), Error> { soon() }
}
