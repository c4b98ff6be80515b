//! The index on disk: opened, written, committed together with how far it has come, read.

use std::{fs, io, panic::catch_unwind, path::Path};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tantivy::{
    IndexReader, IndexWriter, ReloadPolicy, Searcher, TantivyError,
    directory::MmapDirectory,
    indexer::{IndexWriterOptions, LogMergePolicy},
    tokenizer::TokenizerManager,
};

use crate::{
    analyze::{ANALYZER, analyzer},
    build::Stage,
    schema::{EventDoc, Fields, PersonDoc, schema},
};

/// Raised when documents change their form: an index of another format is built anew.
pub(crate) const FORMAT: u32 = 1;

/// How far an index has come; part of each of its commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// Which index this is; the store says which one it is followed by.
    pub(crate) mark: String,
    /// Whether it holds messages.
    pub(crate) messages: bool,
    /// Everything in the log up to there is in the index.
    pub(crate) position: u64,
    /// What is still to be read from the store, while the index is being built.
    pub(crate) stage: Stage,
}

/// A change of the index. Doing it again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// An event as it is now.
    Event(EventDoc),
    /// No such event any more.
    NoEvent(u64),
    /// A person as they are now.
    Person(PersonDoc),
    /// Nobody to be found.
    Nobody(String),
}

impl Op {
    pub(crate) fn is_of_person(&self) -> bool {
        matches!(self, Self::Person(_) | Self::Nobody(_))
    }
}

/// An open index.
pub(crate) struct Index {
    pub(crate) fields: Fields,
    reader: IndexReader,
    writer: Mutex<IndexWriter>,
}

impl Index {
    /// Opens what is in the folder, or begins anew where there is nothing that can be read. Blocks.
    pub(crate) fn open(folder: &Path, memory: usize) -> tantivy::Result<(Self, Option<Progress>)> {
        // Not all damage is an error to the library: some of it panics.
        let opened = catch_unwind(|| Self::try_open(folder, memory));
        let damaged = |_| Err(TantivyError::SystemError("a damaged file".to_owned()));
        match opened.unwrap_or_else(damaged) {
            Err(TantivyError::LockFailure(error, why)) => Err(TantivyError::LockFailure(error, why)),
            Err(error) => {
                tracing::warn!(%error, folder = %folder.display(), "the index cannot be read, building it anew");
                wipe(folder)?;
                Self::try_open(folder, memory)
            }
            opened => opened,
        }
    }

    fn try_open(folder: &Path, memory: usize) -> tantivy::Result<(Self, Option<Progress>)> {
        fs::create_dir_all(folder)?;
        let (schema, fields) = schema();
        let tokenizers = TokenizerManager::default();
        tokenizers.register(ANALYZER, analyzer());
        let builder = tantivy::Index::builder().schema(schema).tokenizers(tokenizers);
        let index = builder.open_or_create(MmapDirectory::open(folder)?)?;
        let progress = index.load_metas()?.payload.and_then(|text| serde_json::from_str(&text).ok());
        let options = IndexWriterOptions::builder()
            .memory_budget_per_thread(memory)
            .num_worker_threads(1)
            .num_merge_threads(1)
            .build();
        let writer: IndexWriter = index.writer_with_options(options)?;
        writer.set_merge_policy(Box::new(LogMergePolicy::default()));
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        Ok((Self { fields, reader, writer: Mutex::new(writer) }, progress))
    }

    /// Takes changes in; they are found after [`Index::commit`]. Blocks.
    pub(crate) fn apply(&self, ops: Vec<Op>) -> tantivy::Result<()> {
        let writer = self.writer.lock();
        for op in ops {
            match op {
                Op::Event(event) => {
                    writer.delete_term(self.fields.event_term(event.key));
                    writer.add_document(self.fields.event(&event))?;
                }
                Op::NoEvent(key) => {
                    writer.delete_term(self.fields.event_term(key));
                }
                Op::Person(person) => {
                    writer.delete_term(self.fields.person_term(&person.user));
                    writer.add_document(self.fields.person(&person))?;
                }
                Op::Nobody(user) => {
                    writer.delete_term(self.fields.person_term(&user));
                }
            }
        }
        Ok(())
    }

    /// Makes what was taken in durable and found, and says how far that is. Blocks.
    pub(crate) fn commit(&self, progress: &Progress) -> tantivy::Result<()> {
        let payload =
            serde_json::to_string(progress).map_err(|error| TantivyError::from(io::Error::other(error)))?;
        let mut writer = self.writer.lock();
        let mut commit = writer.prepare_commit()?;
        commit.set_payload(&payload);
        commit.commit()?;
        self.reader.reload()
    }

    /// The index as it was committed last.
    pub(crate) fn searcher(&self) -> Searcher {
        self.reader.searcher()
    }
}

/// Removes an index. Blocks.
pub(crate) fn wipe(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
