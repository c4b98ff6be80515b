//! Removing what has ended.

use chappe_store::{
    Table, Tx,
    oauth::{BrowserSessions, Clients, Codes, OAuthExpiries},
};

use crate::OAuth;

/// Rows looked at in one go.
const AT_ONCE: usize = 1000;

impl OAuth {
    /// Removes codes, browser sessions and unused clients whose time has come. Meant to be called every few minutes.
    pub async fn sweep(&self) -> Result<(), chappe_store::Error> {
        let now = self.world().now();
        loop {
            let mut rows = self.store().read().scan_from::<OAuthExpiries>(&(), &0_u64, AT_ONCE).await?;
            rows.retain(|((at, ..), ())| *at <= now);
            let mut again = rows.len() == AT_ONCE;
            let mut tx = Tx::new();
            for (key, ()) in &rows {
                let (at, number, hash) = key;
                if *number == Clients::INFO.number {
                    if let Err(error) = self.sweep_client(*at, hash).await {
                        tracing::warn!(%error, "a client that nobody uses stays");
                        again = false;
                    }
                    continue;
                }
                if *number == Codes::INFO.number {
                    tx.delete::<Codes>(hash);
                } else if *number == BrowserSessions::INFO.number {
                    tx.delete::<BrowserSessions>(hash);
                }
                tx.delete::<OAuthExpiries>(key);
            }
            if !tx.is_empty() {
                self.store().commit(tx).await?;
            }
            if !again {
                return Ok(());
            }
        }
    }
}
