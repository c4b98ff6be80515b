//! Event filters of clients, matched against events.

use chappe_rules::Pdu;
use ruma::{
    RoomId,
    api::client::filter::{RoomEventFilter, UrlFilter},
};
use serde::Deserialize;

/// Which relations events may have (MSC3874), beside what [`RoomEventFilter`] knows.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Relations {
    /// Only events with one of these relation types.
    #[serde(default, alias = "org.matrix.msc3874.rel_types")]
    rel_types: Option<Vec<String>>,
    /// No events with any of these.
    #[serde(default, alias = "org.matrix.msc3874.not_rel_types")]
    not_rel_types: Vec<String>,
}

impl Relations {
    /// Whether an event has a relation that is wanted.
    pub(crate) fn pass(&self, event: &Pdu) -> bool {
        if self.rel_types.is_none() && self.not_rel_types.is_empty() {
            return true;
        }
        let rel_type = event.relation().map(|(rel_type, _)| rel_type);
        let is_one_of = |types: &[String]| rel_type.as_ref().is_some_and(|rel_type| types.contains(rel_type));
        self.rel_types.as_deref().is_none_or(is_one_of) && !is_one_of(&self.not_rel_types)
    }
}

/// Whether an event passes a filter (client-server API, "Filtering"). The limit is not looked at.
pub fn passes(filter: &RoomEventFilter, room: &RoomId, event: &Pdu) -> bool {
    let kind = event.kind().to_string();
    let of_type = |patterns: &[String]| patterns.iter().any(|pattern| type_matches(pattern, &kind));
    passes_room(filter, room)
        && !of_type(&filter.not_types)
        && filter.types.as_deref().is_none_or(of_type)
        && !filter.not_senders.iter().any(|sender| sender == event.sender())
        && filter
            .senders
            .as_deref()
            .is_none_or(|senders| senders.iter().any(|sender| sender == event.sender()))
        && match filter.url_filter {
            None => true,
            Some(UrlFilter::EventsWithUrl) => has_url(event),
            Some(UrlFilter::EventsWithoutUrl) => !has_url(event),
        }
}

/// Whether a filter lets anything of a room pass.
pub fn passes_room(filter: &RoomEventFilter, room: &RoomId) -> bool {
    !filter.not_rooms.iter().any(|not| not == room)
        && filter.rooms.as_deref().is_none_or(|rooms| rooms.iter().any(|allowed| allowed == room))
}

/// `*` in a filter's type stands for any characters.
fn type_matches(pattern: &str, kind: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| kind.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn has_url(event: &Pdu) -> bool {
    #[derive(Deserialize)]
    struct Content {
        url: Option<serde::de::IgnoredAny>,
    }
    event.content_as::<Content>().is_some_and(|content| content.url.is_some())
}

#[cfg(test)]
mod tests {
    use super::type_matches;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, kind) in
            [("m.room.*", "m.room.name"), ("*", ""), ("m.*.x*z", "m.a.xz"), ("a", "a"), ("a*a", "aa")]
        {
            assert!(type_matches(pattern, kind), "{pattern} {kind}");
        }
        for (pattern, kind) in [("m.room.*", "m.roomy"), ("a*a", "a"), ("a", "ab"), ("*b*", "acd"), ("", "a")]
        {
            assert!(!type_matches(pattern, kind), "{pattern} {kind}");
        }
    }
}
