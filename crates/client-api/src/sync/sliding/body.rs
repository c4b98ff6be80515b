//! What a client asks of a sliding sync, in the form of the first proposal and in that of the last.
//!
//! Old: tokens in the query, `required_state` as pairs, `ranges`, `is_invite`. New: all in the body, `required_state` as
//! an object, `range`, `is_invited`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chappe_delivery::{
    ExtensionsAsk, List, ListFilters, Pattern, Received, RoomAsk, Scope, SlidingRequest, StickyAsk,
    ToDeviceAsk, WantedState, state_key,
};
use chappe_web::Error;
use ruma::{DeviceId, OwnedRoomId, UserId, presence::PresenceState};
use serde::Deserialize;

use crate::sync::presence::known;

/// Lists and subscriptions in one request (MSC4186).
const MOST: usize = 100;
/// Windows of one list.
const RANGES: usize = 100;
/// Patterns of state for one room, names of one filter.
const PATTERNS: usize = 500;
/// Changed thread subscriptions if the client does not say how many (MSC4308).
const SUBSCRIPTIONS: usize = 100;
/// Bytes of the patterns of state for one room together.
const PATTERN_BYTES: usize = 16 * 1024;
/// Bytes of a name that the client chose, of a type, of a state key.
const NAME: usize = 255;

#[derive(Debug, Default, Deserialize)]
pub(in crate::sync) struct Query {
    pos: Option<String>,
    timeout: Option<u64>,
    set_presence: Option<PresenceState>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Body {
    pos: Option<String>,
    conn_id: Option<String>,
    pub(super) txn_id: Option<String>,
    timeout: Option<u64>,
    set_presence: Option<PresenceState>,
    lists: Option<BTreeMap<String, ListBody>>,
    room_subscriptions: Option<BTreeMap<OwnedRoomId, RoomBody>>,
    extensions: Option<ExtensionsBody>,
}

#[derive(Debug, Deserialize)]
struct ListBody {
    ranges: Option<Vec<(usize, usize)>>,
    range: Option<(usize, usize)>,
    filters: Option<FiltersBody>,
    #[serde(flatten)]
    room: RoomBody,
}

#[derive(Debug, Default, Deserialize)]
struct RoomBody {
    #[serde(default)]
    timeline_limit: usize,
    required_state: Option<StateBody>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum StateBody {
    Pairs(Vec<(String, String)>),
    Patterns {
        #[serde(default)]
        include: Vec<PatternBody>,
        #[serde(default)]
        exclude: Vec<PatternBody>,
        #[serde(default)]
        lazy_members: bool,
    },
}

#[derive(Debug, Deserialize)]
struct PatternBody {
    r#type: Option<String>,
    state_key: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct FiltersBody {
    is_dm: Option<bool>,
    is_encrypted: Option<bool>,
    #[serde(alias = "is_invited")]
    is_invite: Option<bool>,
    room_types: Option<BTreeSet<Option<String>>>,
    not_room_types: Option<BTreeSet<Option<String>>>,
    spaces: Option<BTreeSet<OwnedRoomId>>,
    tags: Option<BTreeSet<String>>,
    not_tags: Option<BTreeSet<String>>,
}

#[derive(Debug, Default, Deserialize)]
struct ExtensionsBody {
    to_device: Option<TokenBody>,
    e2ee: Option<ScopeBody>,
    account_data: Option<ScopeBody>,
    receipts: Option<ScopeBody>,
    typing: Option<ScopeBody>,
    #[serde(rename = "io.element.msc4308.thread_subscriptions")]
    threads: Option<TokenBody>,
    #[serde(rename = "org.matrix.msc4354.sticky_events")]
    sticky: Option<TokenBody>,
}

#[derive(Debug, Deserialize)]
struct TokenBody {
    #[serde(default)]
    enabled: Option<bool>,
    limit: Option<usize>,
    since: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ScopeBody {
    enabled: Option<bool>,
    lists: Option<BTreeSet<String>>,
    rooms: Option<BTreeSet<String>>,
}

impl Body {
    /// The request, if it keeps to the limits.
    pub(super) fn request(
        self,
        query: Query,
        user: &UserId,
        device: Option<&DeviceId>,
    ) -> Result<SlidingRequest, Error> {
        let connection = self.conn_id.unwrap_or_default();
        let (lists, subscriptions) =
            (self.lists.unwrap_or_default(), self.room_subscriptions.unwrap_or_default());
        at_most("lists", lists.len(), MOST)?;
        at_most("room_subscriptions", subscriptions.len(), MOST)?;
        at_most("the name of the connection", connection.len(), NAME)?;
        for name in lists.keys() {
            at_most("the name of a list", name.len(), NAME)?;
        }
        let presence = known(query.set_presence.or(self.set_presence).unwrap_or_default())?;
        let list = |(name, list): (String, ListBody)| Ok((name, list.list(user)?));
        let room = |(id, room): (OwnedRoomId, RoomBody)| Ok((id, room.ask(user)?));
        Ok(SlidingRequest {
            user: user.to_owned(),
            device: device.map(ToOwned::to_owned),
            connection,
            pos: query.pos.or(self.pos).filter(|pos| !pos.is_empty()),
            lists: lists.into_iter().map(list).collect::<Result<_, Error>>()?,
            subscriptions: subscriptions.into_iter().map(room).collect::<Result<_, Error>>()?,
            extensions: self.extensions.unwrap_or_default().ask()?,
            presence,
            timeout: Duration::from_millis(query.timeout.or(self.timeout).unwrap_or(0)),
        })
    }
}

impl ListBody {
    fn list(self, user: &UserId) -> Result<List, Error> {
        let ranges = self.ranges.or(self.range.map(|range| vec![range]));
        for (from, to) in ranges.iter().flatten() {
            if from > to {
                return Err(Error::invalid_param("A range begins before it ends"));
            }
        }
        at_most("ranges", ranges.as_ref().map_or(0, Vec::len), RANGES)?;
        let filters = self.filters.map(FiltersBody::filters).transpose()?.unwrap_or_default();
        Ok(List { ranges, ask: self.room.ask(user)?, filters })
    }
}

impl RoomBody {
    fn ask(self, user: &UserId) -> Result<RoomAsk, Error> {
        let state = self.required_state.map(|state| state.wanted(user)).unwrap_or_default();
        at_most("required_state", state.include.len() + state.exclude.len(), PATTERNS)?;
        let mut bytes = 0;
        for text in state.include.iter().chain(&state.exclude).flat_map(|one| [&one.kind, &one.key]).flatten()
        {
            at_most("bytes of a type or state key", text.len(), NAME)?;
            bytes += text.len();
        }
        at_most("bytes of required_state", bytes, PATTERN_BYTES)?;
        Ok(RoomAsk { timeline_limit: self.timeline_limit, state })
    }
}

impl StateBody {
    fn wanted(self, user: &UserId) -> WantedState {
        match self {
            Self::Pairs(pairs) => {
                let (lazy, pairs): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|(_, key)| key == "$LAZY");
                let pattern = |(kind, key): (String, String)| Pattern {
                    kind: (kind != "*").then_some(kind),
                    key: state_key(&key, user),
                };
                WantedState {
                    include: pairs.into_iter().map(pattern).collect(),
                    exclude: BTreeSet::new(),
                    lazy: lazy.iter().any(|(kind, _)| kind == "m.room.member"),
                }
            }
            Self::Patterns { include, exclude, lazy_members } => {
                let patterns = |patterns: Vec<PatternBody>| patterns.into_iter().map(PatternBody::pattern);
                WantedState {
                    include: patterns(include).collect(),
                    exclude: patterns(exclude).collect(),
                    lazy: lazy_members,
                }
            }
        }
    }
}

impl PatternBody {
    fn pattern(self) -> Pattern {
        Pattern { kind: self.r#type, key: self.state_key }
    }
}

impl FiltersBody {
    fn filters(self) -> Result<ListFilters, Error> {
        let Self { is_dm, is_encrypted, is_invite, room_types, not_room_types, spaces, tags, not_tags } =
            self;
        let (not_room_types, not_tags) = (not_room_types.unwrap_or_default(), not_tags.unwrap_or_default());
        let named = room_types.as_ref().map_or(0, BTreeSet::len) + not_room_types.len();
        let tagged = tags.as_ref().map_or(0, BTreeSet::len) + not_tags.len();
        at_most("filters", named + tagged + spaces.as_ref().map_or(0, BTreeSet::len), PATTERNS)?;
        Ok(ListFilters { is_dm, is_encrypted, is_invite, room_types, not_room_types, spaces, tags, not_tags })
    }
}

impl ExtensionsBody {
    fn ask(self) -> Result<ExtensionsAsk, Error> {
        let to_device = self.to_device.filter(|to_device| to_device.enabled == Some(true));
        let to_device = to_device.map(|to_device| {
            Ok::<_, Error>(ToDeviceAsk { since: to_device.since()?, limit: to_device.limit })
        });
        let sticky = self.sticky.filter(|sticky| sticky.enabled == Some(true));
        let sticky =
            sticky.map(|sticky| Ok::<_, Error>(StickyAsk { since: sticky.since()?, limit: sticky.limit }));
        let threads = self.threads.filter(|threads| threads.enabled == Some(true));
        Ok(ExtensionsAsk {
            to_device: to_device.transpose()?,
            e2ee: self.e2ee.is_some_and(|e2ee| e2ee.enabled == Some(true)),
            account_data: ScopeBody::scope(self.account_data)?,
            receipts: ScopeBody::scope(self.receipts)?,
            typing: ScopeBody::scope(self.typing)?,
            threads: threads.map(|threads| threads.limit.unwrap_or(SUBSCRIPTIONS)),
            sticky: sticky.transpose()?,
        })
    }
}

impl TokenBody {
    /// The token, as an earlier answer gave it.
    fn since(&self) -> Result<Option<Received>, Error> {
        let since = self.since.as_deref().filter(|since| !since.is_empty());
        let parse = |since: &str| since.parse().map_err(|_| Error::invalid_param("since is not a token"));
        since.map(parse).transpose()
    }
}

impl ScopeBody {
    fn scope(body: Option<Self>) -> Result<Option<Scope>, Error> {
        let Some(body) = body.filter(|body| body.enabled == Some(true)) else { return Ok(None) };
        let room = |room: String| {
            let id = (room != "*").then(|| OwnedRoomId::try_from(room));
            id.transpose().map_err(|_| Error::invalid_param("rooms of an extension are room ids or *"))
        };
        let rooms = body.rooms.map(|rooms| rooms.into_iter().map(room).collect::<Result<_, Error>>());
        Ok(Some(Scope { lists: body.lists, rooms: rooms.transpose()? }))
    }
}

fn at_most(what: &str, is: usize, most: usize) -> Result<(), Error> {
    if is <= most { Ok(()) } else { Err(Error::invalid_param(format!("{what}: at most {most}"))) }
}

#[cfg(test)]
mod tests {
    use ruma::{device_id, user_id};
    use serde_json::{Value, json};

    use super::{Body, Error, Query};
    use chappe_delivery::SlidingRequest;

    fn request(body: Value) -> Result<SlidingRequest, Error> {
        let body: Body = serde_json::from_value(body).unwrap();
        body.request(Query::default(), user_id!("@me:x"), Some(device_id!("D")))
    }

    #[test]
    fn both_forms_mean_the_same() {
        let old = json!({"lists": {"a": {
            "ranges": [[0, 19]], "timeline_limit": 1, "filters": {"is_invite": false},
            "required_state": [["m.room.name", ""], ["m.room.member", "$ME"], ["m.room.member", "$LAZY"], ["m.space.child", "*"]],
        }}});
        let new = json!({"lists": {"a": {
            "range": [0, 19], "timeline_limit": 1, "filters": {"is_invited": false},
            "required_state": {"lazy_members": true, "include": [
                {"type": "m.room.name", "state_key": ""}, {"type": "m.room.member", "state_key": "@me:x"}, {"type": "m.space.child"},
            ]},
        }}});
        assert_eq!(request(old).unwrap().lists, request(new).unwrap().lists);
    }

    #[test]
    fn limits_are_kept() {
        let many = |n: usize| (0..n).map(|n| (n.to_string(), json!({}))).collect::<serde_json::Map<_, _>>();
        assert!(request(json!({"lists": many(100)})).is_ok());
        assert!(request(json!({"lists": many(101)})).is_err());
        let rooms = (0..101).map(|n| (format!("!r{n}:x"), json!({}))).collect::<serde_json::Map<_, _>>();
        assert!(request(json!({"room_subscriptions": rooms})).is_err());
        assert!(request(json!({"conn_id": "x".repeat(256)})).is_err());
        assert!(request(json!({"lists": {"a": {"ranges": [[5, 4]]}}})).is_err());
        assert!(request(json!({"lists": {"a": {"ranges": vec![[0, 1]; 101]}}})).is_err());
        assert!(request(json!({"lists": {"a": {"ranges": [[0, 9_007_199_254_740_991_u64]]}}})).is_ok());
        let patterns: Vec<_> = (0..501).map(|n| json!([n.to_string(), ""])).collect();
        assert!(request(json!({"lists": {"a": {"required_state": patterns}}})).is_err());
        let pattern = |kind: usize, key: usize| {
            request(
                json!({"room_subscriptions": {"!r:x": {"required_state": [["t".repeat(kind), "k".repeat(key)]]}}}),
            )
        };
        assert!(pattern(255, 255).is_ok());
        assert!(pattern(256, 0).is_err() && pattern(0, 256).is_err());
        let long: Vec<_> = (0..65).map(|n| json!([format!("{n:0>250}"), ""])).collect();
        assert!(request(json!({"lists": {"a": {"required_state": long[..60]}}})).is_ok());
        assert!(request(json!({"lists": {"a": {"required_state": {"exclude": [], "include": []}}}})).is_ok());
        assert!(request(json!({"lists": {"a": {"required_state": long[..60].iter().cloned().chain((0..10).map(|n| json!([format!("{n:a>250}"), ""]))).collect::<Vec<_>>()}}})).is_err());
        assert!(request(json!({"set_presence": "dancing"})).is_err());
        assert!(request(json!({"extensions": {"to_device": {"enabled": true, "since": "x"}}})).is_err());
        assert!(request(json!({"extensions": {"typing": {"enabled": true, "rooms": ["x"]}}})).is_err());
    }

    #[test]
    fn extensions_are_off_until_they_are_on() {
        let off = request(
            json!({"extensions": {"typing": {}, "e2ee": {"enabled": false}, "unheard_of": {"enabled": true}}}),
        );
        let off = off.unwrap().extensions;
        assert!(off.typing.is_none() && !off.e2ee && off.to_device.is_none());
        let on = request(
            json!({"extensions": {"typing": {"enabled": true, "rooms": ["*"]}, "e2ee": {"enabled": true}}}),
        );
        let on = on.unwrap().extensions;
        assert!(on.e2ee && on.typing.unwrap().rooms.unwrap().contains(&None));
    }
}
