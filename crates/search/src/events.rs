//! What is indexed of events, and how it is asked for.

use std::sync::Arc;

use chappe_rooms::Event;
use chappe_rules::Pdu;
use chappe_store::{EventNum, RoomNid};
use roaring::RoaringBitmap;
use ruma::OwnedUserId;
use serde_json::{Map, Value};
use tantivy::{
    Term,
    query::{BooleanQuery, ConstScoreQuery, Occur, PhraseQuery, Query, TermQuery, TermSetQuery},
    schema::IndexRecordOption,
};

use crate::{
    analyze::{composed, words},
    index::{Index, Op},
    pick::{Hit, Pick},
    schema::{EventDoc, Fields},
};

/// Words of one question at most; more are left out.
const WORDS: usize = 16;
/// So many rooms are part of the question; more are looked up for each hit.
const FEW: usize = 16;
/// Bits of a recency below the millisecond: the event's number orders what was said in one.
const FINE: u32 = 22;

/// In which order hits come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The best first.
    #[default]
    Rank,
    /// The newest first.
    Recent,
}

/// The keys of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `content.body`
    Body,
    /// `content.name`, of `m.room.name`
    Name,
    /// `content.topic`, of `m.room.topic`
    Topic,
}

impl Field {
    fn number(self) -> u64 {
        match self {
            Self::Body => 0,
            Self::Name => 1,
            Self::Topic => 2,
        }
    }

    /// The words of an event, if it has any.
    fn of(event: &Pdu) -> Option<(Self, String)> {
        let content: Map<String, Value> = event.content_as()?;
        let (field, name) = match event.kind().to_string().as_str() {
            "m.room.name" => (Self::Name, "name"),
            "m.room.topic" => (Self::Topic, "topic"),
            _ => (Self::Body, "body"),
        };
        let text = content.get(name)?.as_str().filter(|text| !text.trim().is_empty())?;
        Some((field, text.to_owned()))
    }

    /// The text of an event that is searched.
    pub(crate) fn text(event: &Pdu) -> Option<String> {
        Self::of(event).map(|(_, text)| composed(&text))
    }
}

/// The one key of an event in the index.
pub(crate) fn key(nid: RoomNid, num: EventNum) -> u64 {
    (u64::from(nid.0) << 32) | u64::from(num.0)
}

/// Which event a key is of.
pub(crate) fn address(key: u64) -> (RoomNid, EventNum) {
    let low = u32::try_from(key & u64::from(u32::MAX)).unwrap_or(0);
    (RoomNid(u32::try_from(key >> 32).unwrap_or(0)), EventNum(low))
}

/// The event as the index is to have it: not at all if it is redacted, not part of the room, or has no words. A time
/// stamp of the future counts as `now`, so that nobody stays on top by lying.
pub(crate) fn op(nid: RoomNid, event: &Event, now: u64) -> Op {
    let key = key(nid, event.num);
    if !event.is_shown() || event.is_redacted() {
        return Op::NoEvent(key);
    }
    let Some((field, text)) = Field::of(&event.pdu) else { return Op::NoEvent(key) };
    let said = u64::from(event.pdu.origin_server_ts().0).min(now).min(u64::MAX >> FINE);
    let recency = (said << FINE) | (u64::from(event.num.0) & ((1 << FINE) - 1));
    Op::Event(EventDoc {
        key,
        recency,
        part: field.number(),
        kind: event.pdu.kind().to_string(),
        sender: event.pdu.sender().to_string(),
        text: composed(&text),
    })
}

/// What is asked for: every word or phrase has to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms(Vec<Vec<String>>);

impl Terms {
    /// Words, and phrases between double quotes.
    pub(crate) fn parse(text: &str) -> Self {
        let mut terms = Vec::new();
        for (number, piece) in text.split(['"', '«', '»', '“', '”']).enumerate() {
            let words = words(piece);
            if number % 2 == 1 {
                terms.push(words);
            } else {
                terms.extend(words.into_iter().map(|word| vec![word]));
            }
        }
        terms.retain(|words| !words.is_empty());
        let mut left = WORDS;
        for words in &mut terms {
            words.truncate(left);
            left -= words.len();
        }
        terms.retain(|words| !words.is_empty());
        Self(terms)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a word is among them.
    pub(crate) fn have(&self, word: &str) -> bool {
        self.0.iter().flatten().any(|term| term == word)
    }

    fn queries(&self, fields: &Fields) -> impl Iterator<Item = Box<dyn Query>> {
        let term = |word: &String| Term::from_field_text(fields.text, word);
        self.0.iter().map(move |words| -> Box<dyn Query> {
            match &words[..] {
                [word] => Box::new(TermQuery::new(term(word), IndexRecordOption::WithFreqs)),
                words => Box::new(PhraseQuery::new(words.iter().map(term).collect())),
            }
        })
    }
}

/// A question to the index.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) terms: Terms,
    /// Empty: all.
    pub(crate) fields: Vec<Field>,
    pub(crate) rooms: Arc<RoaringBitmap>,
    /// Said by one of these; none: by anybody.
    pub(crate) senders: Option<Vec<OwnedUserId>>,
    /// Of one of these types; none: of any.
    pub(crate) kinds: Option<Vec<String>>,
    pub(crate) order: Order,
    pub(crate) after: Option<Hit>,
    pub(crate) limit: usize,
}

impl Question {
    /// The first hits, best first. Blocks; reads no more than the lists of the rarest word.
    pub(crate) fn ask(&self, index: &Index) -> tantivy::Result<Vec<Hit>> {
        let few = self.rooms.len() <= FEW as u64;
        let fields = &index.fields;
        let mut clauses: Vec<(Occur, Box<dyn Query>)> =
            self.terms.queries(fields).map(|query| (Occur::Must, query)).collect();
        let mut filter = |terms: Vec<Term>| {
            let query = ConstScoreQuery::new(Box::new(TermSetQuery::new(terms)), 0.0);
            clauses.push((Occur::Must, Box::new(query)));
        };
        if few {
            filter(self.rooms.iter().map(|nid| Term::from_field_u64(fields.room, nid.into())).collect());
        }
        if !self.fields.is_empty() {
            let parts = self.fields.iter().map(|field| field.number());
            filter(parts.map(|part| Term::from_field_u64(fields.part, part)).collect());
        }
        if let Some(senders) = &self.senders {
            filter(senders.iter().map(|user| Term::from_field_text(fields.sender, user.as_str())).collect());
        }
        if let Some(kinds) = &self.kinds {
            filter(kinds.iter().map(|kind| Term::from_field_text(fields.kind, kind)).collect());
        }
        let pick = Pick {
            order: self.order,
            rooms: (!few).then(|| self.rooms.clone()),
            after: self.after,
            limit: self.limit,
        };
        index.searcher().search(&BooleanQuery::new(clauses), &pick)
    }
}

#[cfg(test)]
mod tests {
    use chappe_store::{EventNum, RoomNid};

    use super::{Terms, WORDS, address, key};

    #[test]
    fn words_and_phrases_are_told_apart() {
        let terms = |text: &str| Terms::parse(text).0;
        assert_eq!(terms("L'Été  2024"), [vec!["l"], vec!["ete"], vec!["2024"]]);
        assert_eq!(terms("a \"b C\" d"), [vec!["a"], vec!["b", "c"], vec!["d"]]);
        assert!(terms("« »\"\" !").is_empty());
        assert_eq!(terms(&"x ".repeat(100)).len(), WORDS);
        assert_eq!(terms(&format!("\"{}\"", "x ".repeat(100)))[0].len(), WORDS);
    }

    #[test]
    fn keys_name_events() {
        let (nid, num) = (RoomNid(u32::MAX), EventNum(7));
        assert_eq!(address(key(nid, num)), (nid, num));
    }
}
