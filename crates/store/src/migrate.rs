//! The format of the disk: its version, and how an older one is brought up to date.

use crate::{
    expiry::note_retentions,
    gaps::note_missing,
    log::Meta,
    out_of_band::list_out_of_bands,
    state::note_states,
    tx::{Error, Store, Tx},
};

/// The format this release writes. Raise it together with a new arm in `step`.
///
/// 2: events are packed. Those of format 1 are read as they are. 3: heads of rooms say how long what is said is kept.
/// 4: it is noted since when a room has had its state, and what is missing is found by its id.
/// 5: invites and knocks elsewhere are listed.
pub const FORMAT: u32 = 5;

const NAME: &str = "format";

/// Writes the format at first open, refuses a newer one, brings an older one up to date step by step.
pub(crate) async fn migrate(store: &Store) -> Result<(), Error> {
    loop {
        let Some(bytes) = store.read().get::<Meta>(&NAME.to_owned()).await? else {
            let mut tx = Tx::new();
            tx.expect_absent::<Meta>(&NAME.to_owned());
            tx.put::<Meta>(&NAME.to_owned(), &FORMAT.to_be_bytes().to_vec());
            match store.commit(tx).await {
                Ok(_) => return Ok(()),
                Err(Error::Conflict) => continue,
                Err(error) => return Err(error),
            }
        };
        let found = bytes.try_into().map(u32::from_be_bytes).map_err(|_| Error::Corrupt("format version"))?;
        match found {
            FORMAT => return Ok(()),
            0 => return Err(Error::Corrupt("format version")),
            older if older < FORMAT => step(store, older).await?,
            newer => return Err(Error::NewerFormat { found: newer, known: FORMAT }),
        }
    }
}

/// One step from `format` to the next; it writes the new number with its last transaction.
async fn step(store: &Store, format: u32) -> Result<(), Error> {
    match format {
        // What is there stays as it is; only an older release must not find what is written from now on.
        1 => advance(store, format).await,
        2 => {
            note_retentions(store).await?;
            advance(store, format).await
        }
        3 => {
            note_states(store).await?;
            note_missing(store).await?;
            advance(store, format).await
        }
        4 => {
            list_out_of_bands(store).await?;
            advance(store, format).await
        }
        _ => Err(Error::Corrupt("no migration from this format")),
    }
}

async fn advance(store: &Store, from: u32) -> Result<(), Error> {
    let mut tx = Tx::new();
    tx.expect::<Meta>(&NAME.to_owned(), Some(&from.to_be_bytes().to_vec()));
    tx.put::<Meta>(&NAME.to_owned(), &(from + 1).to_be_bytes().to_vec());
    match store.commit(tx).await {
        // Another process was faster.
        Ok(_) | Err(Error::Conflict) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use chappe_kv::{Db, Memory};

    use super::{FORMAT, NAME};
    use crate::{
        log::Meta,
        tx::{Error, Store, Tx},
    };

    #[tokio::test]
    async fn first_open_writes_the_format_and_a_newer_one_is_refused() {
        let db = Db::new(Memory::default());
        let store = Store::open(db.clone()).await.unwrap();
        assert_eq!(store.read().get::<Meta>(&NAME.to_owned()).await.unwrap().unwrap(), FORMAT.to_be_bytes());
        Store::open(db.clone()).await.unwrap();

        set_format(&store, FORMAT + 1).await;
        assert!(matches!(Store::open(db).await, Err(Error::NewerFormat { .. })));
    }

    async fn set_format(store: &Store, format: u32) {
        let mut tx = Tx::new();
        tx.put::<Meta>(&NAME.to_owned(), &format.to_be_bytes().to_vec());
        store.commit(tx).await.unwrap();
    }

    #[tokio::test]
    async fn every_older_format_is_brought_up_to_date() {
        for format in 1..FORMAT {
            let db = Db::new(Memory::default());
            set_format(&Store::new(db.clone()), format).await;
            let store = Store::open(db).await.unwrap();
            assert_eq!(
                store.read().get::<Meta>(&NAME.to_owned()).await.unwrap().unwrap(),
                FORMAT.to_be_bytes()
            );
        }
    }
}
