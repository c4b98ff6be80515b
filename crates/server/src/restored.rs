//! A database that was put back from a backup: what the server that was lost gave out, heard and said since is not known.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use chappe_accounts::Accounts;
use chappe_federation::Federation;
use chappe_kv::Db;
use chappe_kv_rocksdb::{Options, Rocks};
use chappe_store::{Error, Meta, Store, Tx, registry::class};

/// Positions left out: more commits than any server makes between two backups.
const LEFT_OUT: u64 = 1 << 40;
/// The row that says that the next start is the first one.
const NAME: &str = "restored";

/// Makes a copy that nobody has open ready to be started from: positions are not given out again, and it is noted that it
/// was put back.
pub(crate) async fn prepare(database: PathBuf) -> Result<(), chappe_admin::Error> {
    mark(&database).await?;
    Ok(())
}

async fn mark(database: &Path) -> Result<(), Error> {
    let options = Options::default();
    Rocks::skip(database, &options, class, LEFT_OUT)?;
    let store = Store::new(Db::new(Rocks::open(database, &options, class)?));
    let mut tx = Tx::new();
    tx.put::<Meta>(&NAME.to_owned(), &vec![1]);
    store.commit(tx).await.map(drop)
}

/// At the first start, before anybody is served: lists of devices are not believed before they are fetched again, and other
/// servers are told to fetch those of this one's users; no one-time key that is kept is handed out, and no refresh token is
/// taken for an old one. The mark goes last: what breaks off is done again.
pub(crate) async fn settle(store: &Store, accounts: &Accounts, federation: &Federation) -> Result<()> {
    if store.read().get::<Meta>(&NAME.to_owned()).await?.is_none() {
        return Ok(());
    }
    tracing::info!(
        "a backup was put back: lists of devices are fetched anew, and one-time keys are uploaded"
    );
    accounts.forget_families().await.context("families of refresh tokens")?;
    accounts.forget_one_time_keys().await.context("one-time keys")?;
    accounts.doubt_all().await.context("device lists of other servers")?;
    federation.announce_anew().await.context("device lists of this server")?;
    let mut tx = Tx::new();
    tx.delete::<Meta>(&NAME.to_owned());
    store.commit(tx).await?;
    Ok(())
}
