//! Registered clients: known by a digest of what they registered, so that the same client is kept once.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chappe_store::{
    Direction, Json, Reader, Table, Tx,
    oauth::{Client, ClientDevices, Clients, IdleClients, OAuthCounts, OAuthExpiries},
};

use crate::{
    OAuth,
    api::ATTEMPTS,
    error::{Error, Result},
    metadata::Metadata,
    secrets::sha256,
};

/// A client's note of its last use is not renewed more often, and none gives way that was used since, in milliseconds.
const FRESH: u64 = 600_000;
/// Clients looked at to find one that gives way to a new one.
const LOOKED_AT: usize = 100;

/// The name of the count of clients.
const COUNT: &str = "clients";

/// A registered client.
#[derive(Clone, Debug)]
pub(crate) struct Registered {
    /// Its digest, the client id in bytes.
    pub(crate) digest: [u8; 32],
    pub(crate) metadata: Metadata,
}

impl OAuth {
    /// Registers a client; gives its id. What is registered already gets the id it has.
    pub(crate) async fn register(&self, metadata: &Metadata) -> Result<String> {
        let document = serde_json::to_value(metadata).map_err(|_| Error::Internal)?;
        let digest = sha256(&document.to_string());
        for _ in 0..ATTEMPTS {
            let (reader, now) = (self.store().read(), self.world().now());
            let mut tx = Tx::new();
            if let Some(row) = reader.get::<Clients>(&digest).await? {
                touch(&mut tx, &digest, &row, now);
                if tx.is_empty() {
                    return Ok(client_id(&digest));
                }
            } else {
                let count = reader.get::<OAuthCounts>(&COUNT.to_owned()).await?.unwrap_or(0);
                let full = count >= i64::from(self.config().max_clients);
                if full && !give_way(&reader, &mut tx, now.saturating_sub(FRESH)).await? {
                    if tx.is_empty() {
                        tracing::warn!("too many OAuth clients are registered: a new one is turned away");
                        return Err(Error::busy());
                    }
                    drop(reader);
                    self.store().commit(tx).await?;
                    continue;
                }
                let row = Json(Client { metadata: document.clone(), used: now });
                tx.expect_absent::<Clients>(&digest).put::<Clients>(&digest, &row);
                tx.put::<IdleClients>(&(now, digest), &());
                tx.add::<OAuthCounts>(&COUNT.to_owned(), 1);
                let look = now.saturating_add(self.client_lifetime());
                tx.put::<OAuthExpiries>(&(look, Clients::INFO.number, digest), &());
            }
            drop(reader);
            match self.store().commit(tx).await {
                Ok(_) => return Ok(client_id(&digest)),
                Err(chappe_store::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::busy())
    }

    /// A client by its id.
    pub(crate) async fn client(&self, id: &str) -> Result<Registered> {
        const UNKNOWN: Error = Error::InvalidClient("there is no such client");
        let digest = digest(id).ok_or(UNKNOWN)?;
        let Json(row) = self.store().read().get::<Clients>(&digest).await?.ok_or(UNKNOWN)?;
        let metadata = serde_json::from_value(row.metadata).map_err(|_| Error::Internal)?;
        Ok(Registered { digest, metadata })
    }

    /// Looks at a client whose time has come: it goes unless it was used lately or somebody is logged in with it.
    pub(crate) async fn sweep_client(&self, at: u64, digest: &[u8; 32]) -> Result<()> {
        let (reader, now) = (self.store().read(), self.world().now());
        let mut tx = Tx::new();
        tx.delete::<OAuthExpiries>(&(at, Clients::INFO.number, *digest));
        if let Some(row) = reader.get::<Clients>(digest).await? {
            let ends = row.0.used.saturating_add(self.client_lifetime());
            let used = reader.scan::<ClientDevices>(digest, Direction::Forward, 1).await?;
            if ends > now || !used.is_empty() {
                let look = if ends > now { ends } else { now.saturating_add(self.client_lifetime()) };
                tx.put::<OAuthExpiries>(&(look, Clients::INFO.number, *digest), &());
            } else {
                draft_end(&mut tx, digest, &row);
            }
        }
        drop(reader);
        match self.store().commit(tx).await {
            // Somebody logs in with it at this moment: the next sweep looks again.
            Ok(_) | Err(chappe_store::Error::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn client_lifetime(&self) -> u64 {
        self.config().unused_client_hours.saturating_mul(3_600_000)
    }
}

/// Binds a transaction to a client that is still there, and notes its use.
pub(crate) async fn expect_client(
    reader: &Reader<'_>,
    tx: &mut Tx,
    digest: &[u8; 32],
    now: u64,
) -> Result<()> {
    const GONE: Error = Error::InvalidClient("there is no such client");
    let row = reader.get::<Clients>(digest).await?.ok_or(GONE)?;
    tx.expect::<Clients>(digest, Some(&row));
    touch(tx, digest, &row, now);
    Ok(())
}

fn touch(tx: &mut Tx, digest: &[u8; 32], row: &Json<Client>, now: u64) {
    if now.saturating_sub(row.0.used) >= FRESH {
        let used = Client { used: now, ..row.0.clone() };
        tx.expect::<Clients>(digest, Some(row)).put::<Clients>(digest, &Json(used));
        tx.delete::<IdleClients>(&(row.0.used, *digest)).put::<IdleClients>(&(now, *digest), &());
    }
}

/// Removes the client that was last used longest ago, before that time, and that nobody is logged in with. False if there is
/// none among the first; those that are in use leave the order until they are used again.
async fn give_way(reader: &Reader<'_>, tx: &mut Tx, before: u64) -> Result<bool> {
    for ((used, digest), ()) in reader.scan::<IdleClients>(&(), Direction::Forward, LOOKED_AT).await? {
        if used > before {
            break;
        }
        let idle = reader.scan::<ClientDevices>(&digest, Direction::Forward, 1).await?.is_empty();
        match reader.get::<Clients>(&digest).await? {
            Some(row) if idle && row.0.used == used => {
                draft_end(tx, &digest, &row);
                return Ok(true);
            }
            _ => tx.delete::<IdleClients>(&(used, digest)),
        };
    }
    Ok(false)
}

fn draft_end(tx: &mut Tx, digest: &[u8; 32], row: &Json<Client>) {
    tx.expect::<Clients>(digest, Some(row)).delete::<Clients>(digest);
    tx.delete::<IdleClients>(&(row.0.used, *digest));
    tx.add::<OAuthCounts>(&COUNT.to_owned(), -1);
}

/// A client's id: its digest in base64url.
pub(crate) fn client_id(digest: &[u8; 32]) -> String {
    URL_SAFE_NO_PAD.encode(digest)
}

fn digest(id: &str) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(id).ok()?.try_into().ok()
}
