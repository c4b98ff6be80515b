//! Places for connections: a bounded number of them, and no more than a share for one address.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use chappe_web::Origin;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many connections each address has open.
type Open = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// Counts open connections; clones share the counts.
#[derive(Clone)]
pub(crate) struct Places {
    all: Arc<Semaphore>,
    per_address: usize,
    /// Reverse proxies, which speak for many: they are not counted by address.
    settings: Arc<chappe_web::Settings>,
    open: Open,
}

/// A connection's place; free again when this is dropped.
pub(crate) struct Place {
    _one: OwnedSemaphorePermit,
    address: Option<(IpAddr, Open)>,
}

impl Places {
    /// So many places, so many of them for one address (0: as many as there are).
    pub(crate) fn new(all: usize, per_address: usize, settings: Arc<chappe_web::Settings>) -> Self {
        let per_address = if per_address == 0 { usize::MAX } else { per_address };
        Self { all: Arc::new(Semaphore::new(all)), per_address, settings, open: Arc::default() }
    }

    /// Waits for a place for whoever comes next; `None` when the server ends.
    pub(crate) async fn any(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.all).acquire_owned().await.ok()
    }

    /// Gives the place to `peer`; `None` if its address has its share already.
    pub(crate) fn give(&self, one: OwnedSemaphorePermit, peer: IpAddr) -> Option<Place> {
        if self.settings.trusts(peer) {
            return Some(Place { _one: one, address: None });
        }
        let address = Origin(peer).network();
        let mut open = self.open.lock();
        let count = open.entry(address).or_default();
        if *count >= self.per_address {
            return None;
        }
        *count += 1;
        Some(Place { _one: one, address: Some((address, Arc::clone(&self.open))) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((address, open)) = self.address.take() else { return };
        let mut open = open.lock();
        if let Some(count) = open.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, sync::Arc};

    use chappe_web::Settings;

    use super::Places;

    #[tokio::test]
    async fn one_address_gets_its_share_and_proxies_are_not_counted() {
        let trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        let places = Places::new(8, 2, Arc::new(Settings { trusted_proxies, ..Settings::default() }));
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let take = async |text: &str| places.give(places.any().await.unwrap(), ip(text));
        let (first, second) = (take("2001:db8::1").await, take("2001:db8::2").await);
        assert!(first.is_some() && second.is_some());
        assert!(take("2001:db8::3").await.is_none(), "one network of 64 bits is one address");
        let other = take("2001:db8:0:1::1").await;
        assert!(other.is_some());
        drop(first);
        let again = take("2001:db8::3").await;
        assert!(again.is_some());
        let proxied = [take("10.0.0.1").await, take("10.0.0.1").await, take("10.0.0.1").await];
        assert!(proxied.iter().all(Option::is_some));
        drop((second, other, again, proxied));
        assert!(places.open.lock().is_empty());
        assert_eq!(places.all.available_permits(), 8);
    }
}
