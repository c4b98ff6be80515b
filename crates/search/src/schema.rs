//! What the index holds: a document for each event with words, and one for each person.

use tantivy::{
    TantivyDocument, Term,
    schema::{Field, IndexRecordOption, NumericOptions, STORED, Schema, TextFieldIndexing, TextOptions},
};

use crate::analyze::ANALYZER;

/// The fields. Those of events first, then those of people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields {
    /// Room number and event number.
    pub(crate) key: Field,
    /// Room number.
    pub(crate) room: Field,
    /// Grows with time.
    pub(crate) recency: Field,
    /// Which of the three keys of the specification the text is of.
    pub(crate) part: Field,
    /// Event type.
    pub(crate) kind: Field,
    /// Who said it.
    pub(crate) sender: Field,
    /// What was said.
    pub(crate) text: Field,
    /// User id.
    pub(crate) user: Field,
    /// Beginnings of the words of id and name.
    pub(crate) start: Field,
    /// Words of id and name.
    pub(crate) word: Field,
    /// Numbers of the rooms the person is joined to.
    pub(crate) place: Field,
    /// [`OPEN`] and [`LOCAL`].
    pub(crate) standing: Field,
}

/// The person is in a room that anybody may enter or look into.
pub(crate) const OPEN: u64 = 1;
/// The person has an account here.
pub(crate) const LOCAL: u64 = 2;

/// Names of fields that are read as columns.
pub(crate) const KEY: &str = "key";
pub(crate) const RECENCY: &str = "recency";

/// What is indexed of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventDoc {
    pub(crate) key: u64,
    pub(crate) recency: u64,
    pub(crate) part: u64,
    pub(crate) kind: String,
    pub(crate) sender: String,
    pub(crate) text: String,
}

/// What is indexed of a person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PersonDoc {
    pub(crate) user: String,
    pub(crate) words: std::collections::BTreeSet<String>,
    pub(crate) rooms: Vec<u32>,
    pub(crate) open: bool,
    pub(crate) local: bool,
}

fn exact() -> TextOptions {
    let indexing = TextFieldIndexing::default()
        .set_tokenizer("raw")
        .set_fieldnorms(false)
        .set_index_option(IndexRecordOption::Basic);
    TextOptions::default().set_indexing_options(indexing)
}

fn number() -> NumericOptions {
    NumericOptions::default().set_indexed()
}

/// The schema and its fields.
pub(crate) fn schema() -> (Schema, Fields) {
    let mut schema = Schema::builder();
    let text = TextFieldIndexing::default()
        .set_tokenizer(ANALYZER)
        .set_index_option(IndexRecordOption::WithFreqsAndPositions);
    let fields = Fields {
        key: schema.add_u64_field(KEY, number().set_fast()),
        room: schema.add_u64_field("room", number()),
        recency: schema.add_u64_field(RECENCY, NumericOptions::default().set_fast()),
        part: schema.add_u64_field("part", number()),
        kind: schema.add_text_field("kind", exact()),
        sender: schema.add_text_field("sender", exact()),
        text: schema.add_text_field("text", TextOptions::default().set_indexing_options(text)),
        user: schema.add_text_field("user", exact() | STORED),
        start: schema.add_text_field("start", exact()),
        word: schema.add_text_field("word", exact()),
        place: schema.add_u64_field("place", number()),
        standing: schema.add_u64_field("standing", number()),
    };
    (schema.build(), fields)
}

impl Fields {
    /// The term that only the event's document has.
    pub(crate) fn event_term(&self, key: u64) -> Term {
        Term::from_field_u64(self.key, key)
    }

    /// The term that only the person's document has.
    pub(crate) fn person_term(&self, user: &str) -> Term {
        Term::from_field_text(self.user, user)
    }

    pub(crate) fn event(&self, event: &EventDoc) -> TantivyDocument {
        let mut doc = TantivyDocument::default();
        doc.add_u64(self.key, event.key);
        doc.add_u64(self.room, event.key >> 32);
        doc.add_u64(self.recency, event.recency);
        doc.add_u64(self.part, event.part);
        doc.add_text(self.kind, &event.kind);
        doc.add_text(self.sender, &event.sender);
        doc.add_text(self.text, &event.text);
        doc
    }

    pub(crate) fn person(&self, person: &PersonDoc) -> TantivyDocument {
        let mut doc = TantivyDocument::default();
        doc.add_text(self.user, &person.user);
        let mut starts = std::collections::BTreeSet::new();
        for word in &person.words {
            doc.add_text(self.word, word);
            starts.extend(crate::analyze::beginnings(word));
        }
        for start in starts {
            doc.add_text(self.start, start);
        }
        for room in &person.rooms {
            doc.add_u64(self.place, u64::from(*room));
        }
        for (is, what) in [(person.open, OPEN), (person.local, LOCAL)] {
            if is {
                doc.add_u64(self.standing, what);
            }
        }
        doc
    }
}
