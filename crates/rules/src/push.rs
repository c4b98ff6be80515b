//! Push rules: what an event means for one user's attention.

use std::{collections::BTreeMap, sync::Arc};

use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, UserId,
    events::room::power_levels::UserPowerLevel,
    power_levels::NotificationPowerLevelsKey,
    push::{
        Action, ConditionalPushRule, ConditionalPushRuleInit, EventMatchConditionData,
        EventPropertyIsConditionData, FlattenedJson, FlattenedJsonValue, HighlightTweakValue,
        PatternedPushRule, PatternedPushRuleInit, PushCondition, RoomMemberCountConditionData,
        RoomMemberCountIs, Ruleset, SenderNotificationPermissionConditionData, SimplePushRule,
        SoundTweakValue, Tweak,
    },
    serde::Raw,
    uint,
};

use crate::{
    Pdu, client,
    glob::{Glob, folded, padded},
    power::Power,
};

/// Patterns longer than this match nothing, in bytes: no legitimate one comes near, and matching costs pattern × text.
pub const MAX_PATTERN_BYTES: usize = 1_024;

/// The condition that asks whether the user follows the event's thread (MSC4306).
pub const THREAD_SUBSCRIPTION: &str = "io.element.msc4306.thread_subscription";

/// What a user's rules make of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attention {
    /// It counts as unread and is pushed.
    pub notify: bool,
    /// It stands out.
    pub highlight: bool,
    /// It makes this sound.
    pub sound: Option<String>,
}

/// The rules that a user has from the start.
///
/// Specification: client-server API, "Predefined rules".
pub fn defaults(user: &UserId) -> Ruleset {
    let mut rules = Ruleset::server_default(user);
    // Those about threads are for servers that say so.
    rules.postcontent.clear();
    rules.override_.insert(about_polls("poll_response", POLL_RESPONSE, Company::Any, Vec::new()));
    for (name, kind) in
        [("poll_start", "org.matrix.msc3381.poll.start"), ("poll_end", "org.matrix.msc3381.poll.end")]
    {
        let aloud = vec![Action::Notify, Action::SetTweak(Tweak::Sound(SoundTweakValue::Default))];
        rules.underride.insert(about_polls(&format!("{name}_one_to_one"), kind, Company::One, aloud));
        rules.underride.insert(about_polls(name, kind, Company::Any, vec![Action::Notify]));
    }
    rules
}

/// What a server may add to the rules that everybody has from the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Additions {
    /// Whoever is named in the text of an event that does not say whom it mentions is taken to be mentioned, as before
    /// Matrix 1.17 (MSC4210).
    pub guessed_mentions: bool,
    /// Every encrypted event is pushed, so that the client can look for mentions in it (MSC4028).
    pub encrypted_events: bool,
    /// People are told of threads that they follow, and of others only where they are mentioned (MSC4306). Whose clients do
    /// not follow threads for them would hear of none.
    pub followed_threads: bool,
}

/// [`defaults`] with what the server adds.
pub fn defaults_with(user: &UserId, additions: Additions) -> Ruleset {
    let mut rules = defaults(user);
    if additions.guessed_mentions {
        let place = |rules: &Ruleset, id: &str| rules.override_.get_index_of(id).map(|at| at + 1);
        let last = rules.override_.len();
        let at = place(&rules, ".m.rule.is_user_mention").unwrap_or(last);
        rules.override_.shift_insert(at, guessing_name());
        let at = place(&rules, ".m.rule.is_room_mention").unwrap_or(last);
        rules.override_.shift_insert(at, guessing_room());
        rules.content.insert(guessing_user(user));
    }
    if additions.encrypted_events {
        let at = usize::from(rules.override_.get_index_of(".m.rule.master") == Some(0));
        rules.override_.shift_insert(at, about_encrypted());
    }
    if additions.followed_threads {
        rules.postcontent.insert(ConditionalPushRule::unsubscribed_thread());
        rules.postcontent.insert(ConditionalPushRule::subscribed_thread());
    }
    rules
}

/// Stands for the user in rules that [`without_user`] gave.
const WHOEVER: &str = "\u{0}whoever";

/// A user's rules with the user taken out of those that everybody has from the start, so that they are the same for all who
/// changed nothing: they are about the user of the [`Setting`].
pub fn without_user(mut rules: Ruleset, user: &UserId) -> Ruleset {
    let about_whoever = |mut rule: ConditionalPushRule| {
        let default = rule.default;
        for condition in rule.conditions.iter_mut().filter(|_| default) {
            match condition {
                PushCondition::EventMatch(data) if data.pattern == user.as_str() => {
                    data.pattern = WHOEVER.into();
                }
                PushCondition::EventPropertyContains(data) if data.value.as_str() == Some(user.as_str()) => {
                    data.value = WHOEVER.into();
                }
                _ => {}
            }
        }
        rule
    };
    let naming_whoever = |mut rule: PatternedPushRule| {
        if rule.default && rule.pattern == user.localpart() {
            rule.pattern = WHOEVER.into();
        }
        rule
    };
    rules.override_ = rules.override_.into_iter().map(about_whoever).collect();
    rules.content = rules.content.into_iter().map(naming_whoever).collect();
    rules
}

fn aloud_and_clear() -> Vec<Action> {
    let sound = Action::SetTweak(Tweak::Sound(SoundTweakValue::Default));
    vec![Action::Notify, sound, Action::SetTweak(Tweak::Highlight(HighlightTweakValue::Yes))]
}

fn override_rule(id: &str, actions: Vec<Action>, conditions: Vec<PushCondition>) -> ConditionalPushRule {
    ConditionalPushRuleInit { actions, default: true, enabled: true, rule_id: id.to_owned(), conditions }
        .into()
}

fn guessing_name() -> ConditionalPushRule {
    #[expect(deprecated, reason = "this is the old way")]
    let named = PushCondition::ContainsDisplayName;
    override_rule(".m.rule.contains_display_name", aloud_and_clear(), vec![named])
}

fn guessing_room() -> ConditionalPushRule {
    let said = EventMatchConditionData::new("content.body".to_owned(), "@room".to_owned());
    let allowed = SenderNotificationPermissionConditionData::new(NotificationPowerLevelsKey::Room);
    let actions = vec![Action::Notify, Action::SetTweak(Tweak::Highlight(HighlightTweakValue::Yes))];
    let conditions =
        vec![PushCondition::EventMatch(said), PushCondition::SenderNotificationPermission(allowed)];
    override_rule(".m.rule.roomnotif", actions, conditions)
}

fn guessing_user(user: &UserId) -> PatternedPushRule {
    let rule = PatternedPushRuleInit {
        actions: aloud_and_clear(),
        default: true,
        enabled: true,
        rule_id: ".m.rule.contains_user_name".to_owned(),
        pattern: user.localpart().to_owned(),
    };
    rule.into()
}

/// What an event that may mention anybody means: the client is told of it, and no mail is sent (MSC4062).
fn about_encrypted() -> ConditionalPushRule {
    let is = EventPropertyIsConditionData::new("type".to_owned(), "m.room.encrypted".into());
    let no_mail = serde_json::from_str::<Action>(r#"{"set_tweak":"org.matrix.msc4062.dont_email"}"#);
    let actions = std::iter::once(Action::Notify).chain(no_mail.ok()).collect();
    override_rule(ENCRYPTED_EVENT, actions, vec![PushCondition::EventPropertyIs(is)])
}

/// The rule that pushes every encrypted event.
const ENCRYPTED_EVENT: &str = ".org.matrix.msc4028.encrypted_event";

const POLL_RESPONSE: &str = "org.matrix.msc3381.poll.response";

/// In what company a rule applies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Company {
    /// Between two.
    One,
    Any,
}

/// A rule about polls (MSC3930).
fn about_polls(name: &str, kind: &str, company: Company, actions: Vec<Action>) -> ConditionalPushRule {
    let mut conditions = Vec::new();
    if company == Company::One {
        conditions.push(PushCondition::RoomMemberCount(RoomMemberCountConditionData::new(
            RoomMemberCountIs::from(uint!(2)),
        )));
    }
    conditions
        .push(PushCondition::EventMatch(EventMatchConditionData::new("type".to_owned(), kind.to_owned())));
    let rule_id = format!(".org.matrix.msc3930.rule.{name}");
    ConditionalPushRuleInit { actions, default: true, enabled: true, rule_id, conditions }.into()
}

/// An event prepared for many users' rules: flattened once, its body folded once.
#[derive(Debug)]
pub struct Subject {
    flat: FlattenedJson,
    mentions: bool,
    body: Option<String>,
    sender: OwnedUserId,
}

impl Subject {
    /// Prepares an event.
    pub fn new(pdu: &Pdu) -> Self {
        let event = client::render(pdu, client::Form::Full, &client::Unsigned::default());
        let flat = FlattenedJson::from_raw(&Raw::<()>::from_json(event));
        Self {
            mentions: flat.contains_mentions(),
            body: flat.get_str("content.body").map(padded),
            sender: pdu.sender().to_owned(),
            flat,
        }
    }
}

/// What the rules may ask about the room.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The room.
    pub room_id: &'a RoomId,
    /// How many have joined.
    pub joined: u64,
    /// Power levels at the event.
    pub power: Option<&'a Power>,
    /// Whose rules.
    pub user: &'a UserId,
    /// That user's display name in the room.
    pub display_name: &'a str,
    /// Whether that user follows the thread of the event; none if it is in no thread.
    pub follows: Option<bool>,
}

/// Those of a user's rules that are switched on, for evaluation: what many users have alike can be kept once.
#[derive(Debug, Default)]
pub struct ActiveRules {
    override_: Box<[Arc<ConditionalPushRule>]>,
    content: Box<[PatternedPushRule]>,
    postcontent: Box<[Arc<ConditionalPushRule>]>,
    room: Box<[SimplePushRule<OwnedRoomId>]>,
    sender: Box<[SimplePushRule<OwnedUserId>]>,
    underride: Box<[Arc<ConditionalPushRule>]>,
}

impl ActiveRules {
    /// Takes a user's rules; `share` gives what is kept of one that others may have as well.
    pub fn new(
        rules: Ruleset,
        share: impl Fn(ConditionalPushRule) -> Arc<ConditionalPushRule> + Copy,
    ) -> Self {
        let Ruleset { override_, content, postcontent, room, sender, underride, .. } = rules;
        Self {
            override_: override_.into_iter().filter(|rule| rule.enabled).map(share).collect(),
            content: content.into_iter().filter(|rule| rule.enabled).collect(),
            postcontent: postcontent.into_iter().filter(|rule| rule.enabled).map(share).collect(),
            room: room.into_iter().filter(|rule| rule.enabled).collect(),
            sender: sender.into_iter().filter(|rule| rule.enabled).collect(),
            underride: underride.into_iter().filter(|rule| rule.enabled).map(share).collect(),
        }
    }

    /// Whether a rule has a condition of this kind.
    pub fn ask_for(&self, kind: &str) -> bool {
        let mut rules = self.override_.iter().chain(&self.postcontent).chain(&self.underride);
        rules.any(|rule| rule.conditions.iter().any(|condition| condition.kind() == kind))
    }
}

/// Evaluates a user's rules; nobody's attention is drawn to what they said themselves.
///
/// Specification: client-server API, "Push rules".
pub fn evaluate(rules: &ActiveRules, subject: &Subject, setting: &Setting<'_>) -> Attention {
    actions(rules, subject, setting).map(attention).unwrap_or_default()
}

/// What actions ask for.
pub fn attention(actions: &[Action]) -> Attention {
    let mut attention = Attention::default();
    for action in actions {
        match action {
            Action::Notify => attention.notify = true,
            Action::SetTweak(Tweak::Highlight(value)) => {
                attention.highlight = *value == HighlightTweakValue::Yes;
            }
            Action::SetTweak(Tweak::Sound(sound)) => attention.sound = Some(sound.to_string()),
            _ => {}
        }
    }
    attention
}

/// The actions of the first rule that applies, in the order of the kinds; none for what the user said themselves.
pub fn actions<'a>(rules: &'a ActiveRules, subject: &Subject, setting: &Setting<'_>) -> Option<&'a [Action]> {
    if subject.sender == setting.user {
        return None;
    }
    let conditional = |rule: &&Arc<ConditionalPushRule>| conditions_hold(rule, subject, setting);
    if let Some(rule) = rules.override_.iter().find(conditional) {
        return Some(&rule.actions);
    }
    if let Some(rule) = rules.content.iter().find(|rule| content_matches(rule, subject, setting.user)) {
        return Some(&rule.actions);
    }
    if let Some(rule) = rules.postcontent.iter().find(conditional) {
        return Some(&rule.actions);
    }
    if let Some(rule) = rules.room.iter().find(|rule| *rule.rule_id == *setting.room_id) {
        return Some(&rule.actions);
    }
    if let Some(rule) = rules.sender.iter().find(|rule| rule.rule_id == subject.sender) {
        return Some(&rule.actions);
    }
    rules.underride.iter().find(conditional).map(|rule| &rule.actions[..])
}

/// The old ways of being mentioned do not count where the event says who is.
fn is_superseded(rule_id: &str, subject: &Subject) -> bool {
    let old = [".m.rule.contains_display_name", ".m.rule.roomnotif", ".m.rule.contains_user_name"];
    subject.mentions && old.contains(&rule_id)
}

fn content_matches(rule: &PatternedPushRule, subject: &Subject, user: &UserId) -> bool {
    let pattern = if rule.pattern == WHOEVER { user.localpart() } else { &rule.pattern };
    !is_superseded(&rule.rule_id, subject) && body_matches(pattern, subject)
}

fn conditions_hold(rule: &ConditionalPushRule, subject: &Subject, setting: &Setting<'_>) -> bool {
    !is_superseded(&rule.rule_id, subject)
        && rule.conditions.iter().all(|condition| condition_holds(condition, subject, setting))
}

fn condition_holds(condition: &PushCondition, subject: &Subject, setting: &Setting<'_>) -> bool {
    match condition {
        PushCondition::EventMatch(data) if data.pattern == WHOEVER => {
            subject.flat.get_str(&data.key) == Some(setting.user.as_str())
        }
        PushCondition::EventMatch(data) if data.key == "content.body" => body_matches(&data.pattern, subject),
        PushCondition::EventMatch(data) => {
            subject.flat.get_str(&data.key).is_some_and(|value| whole_matches(&data.pattern, value))
        }
        #[expect(deprecated, reason = "clients without m.mentions still rely on it")]
        PushCondition::ContainsDisplayName => {
            !setting.display_name.is_empty() && body_contains(setting.display_name, subject)
        }
        PushCondition::RoomMemberCount(data) => ruma::UInt::try_from(setting.joined)
            .is_ok_and(|joined| std::ops::RangeBounds::contains(&data.is, &joined)),
        PushCondition::SenderNotificationPermission(data) => setting.power.is_some_and(|power| {
            power.of(&subject.sender) >= UserPowerLevel::Int(power.to_notify(data.key.as_ref()))
        }),
        PushCondition::EventPropertyIs(data) => {
            subject.flat.get(&data.key).is_some_and(|value| *value == data.value)
        }
        PushCondition::EventPropertyContains(data) => {
            let values = subject.flat.get(&data.key).and_then(FlattenedJsonValue::as_array);
            values.is_some_and(|values| match data.value.as_str() {
                Some(WHOEVER) => values.iter().any(|value| value.as_str() == Some(setting.user.as_str())),
                _ => values.contains(&data.value),
            })
        }
        PushCondition::ThreadSubscription(data) => setting.follows == Some(data.subscribed),
        _ => false,
    }
}

fn whole_matches(pattern: &str, value: &str) -> bool {
    if pattern.len() > MAX_PATTERN_BYTES {
        return false;
    }
    if pattern.contains(['*', '?']) {
        return Glob::new(pattern).matches(&folded(value));
    }
    pattern == value || folded(pattern) == folded(value)
}

fn body_matches(pattern: &str, subject: &Subject) -> bool {
    let usable = !pattern.is_empty() && pattern.len() <= MAX_PATTERN_BYTES;
    usable && subject.body.as_ref().is_some_and(|body| Glob::words(pattern).matches(body))
}

/// A display name is text, not a pattern.
fn body_contains(name: &str, subject: &Subject) -> bool {
    let usable = name.len() <= MAX_PATTERN_BYTES;
    usable && subject.body.as_ref().is_some_and(|body| Glob::literal_words(name).matches(body))
}

/// How many of a set of events draw attention, per thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counts {
    /// Events that notify.
    pub notifications: u64,
    /// Events that highlight.
    pub highlights: u64,
}

impl Counts {
    /// Counts one more event.
    pub fn add(&mut self, attention: &Attention) {
        self.notifications += u64::from(attention.notify);
        self.highlights += u64::from(attention.notify && attention.highlight);
    }
}

/// Counts by thread root; the main timeline is under `None`.
pub type CountsByThread = BTreeMap<Option<ruma::OwnedEventId>, Counts>;

#[cfg(test)]
mod tests;
