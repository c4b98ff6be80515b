//! What the bodies that are being read may have together, the short ones and the long ones, and what one address has of it.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

use crate::Settings;

/// Bytes of a body that are read without asking whether there is room: no more than a request's head may have.
const FREE_BYTES: usize = 4 << 10;
/// Up to so many bytes a body is short.
const SHORT_BYTES: usize = 64 << 10;

/// Strangers may begin as many bodies as they like: no number of long ones keeps out the short ones.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    short: Room,
    long: Room,
}

impl Budget {
    /// So many bytes for the short ones, and as many for the long ones.
    pub(crate) fn new(bytes: usize) -> Self {
        let [short, long] = [(); 2].map(|()| Room { bytes, taken: Arc::default() });
        Self { short, long }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(Settings::default().bodies_limit)
    }
}

/// Room for bodies of one kind.
#[derive(Clone, Debug)]
struct Room {
    bytes: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    by_all: usize,
    by: HashMap<IpAddr, usize>,
}

impl Room {
    /// So many bytes more for an address. It has no more than half of what the others leave, so that there is always some left.
    fn take(&self, address: IpAddr, bytes: usize) -> Option<()> {
        let mut taken = self.taken.lock();
        let own = taken.by.get(&address).copied().unwrap_or_default();
        let left = self.bytes.saturating_sub(taken.by_all - own);
        if own + bytes > left / 2 {
            return None;
        }
        taken.by_all += bytes;
        taken.by.insert(address, own + bytes);
        Some(())
    }

    fn give_back(&self, address: IpAddr, bytes: usize) {
        let mut taken = self.taken.lock();
        taken.by_all -= bytes;
        if let Some(own) = taken.by.get_mut(&address) {
            *own -= bytes;
            if *own == 0 {
                taken.by.remove(&address);
            }
        }
    }
}

/// What one body has of it, until it is read.
pub(crate) struct Share<'a> {
    budget: &'a Budget,
    address: IpAddr,
    bytes: usize,
    is_long: bool,
}

impl<'a> Share<'a> {
    /// Nothing yet, for a body that comes from an address.
    pub(crate) fn of(budget: &'a Budget, address: IpAddr) -> Self {
        Self { budget, address, bytes: 0, is_long: false }
    }

    /// Takes what is missing for a body that has so many bytes by now. A body that is found to be long is counted anew.
    pub(crate) fn grow(&mut self, bytes: usize) -> Option<()> {
        if bytes <= FREE_BYTES {
            return Some(());
        }
        if bytes > SHORT_BYTES && !self.is_long {
            self.give_back();
            self.is_long = true;
        }
        let needed = bytes.next_multiple_of(1 << 10);
        if needed > self.bytes {
            self.room().take(self.address, needed - self.bytes)?;
            self.bytes = needed;
        }
        Some(())
    }

    fn room(&self) -> &'a Room {
        if self.is_long { &self.budget.long } else { &self.budget.short }
    }

    fn give_back(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes > 0 {
            self.room().give_back(self.address, bytes);
        }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{Budget, Share};

    #[test]
    fn an_address_has_half_of_what_the_others_leave_and_gives_it_back() {
        let budget = Budget::new(400 << 10);
        let body = |address: [u8; 4], kibibytes: usize| {
            let mut share = Share::of(&budget, IpAddr::from(address));
            share.grow(kibibytes << 10).map(|()| share)
        };
        let (one, other) = ([192, 0, 2, 1], [192, 0, 2, 2]);
        let mut held: Vec<_> = (0..4).map(|_| body(one, 50)).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(body(one, 50).is_none(), "it has its half");
        assert!(body(one, 200).is_some(), "long ones are counted on their own");
        assert!(body(other, 50).is_some(), "one address keeps nobody out");
        held.extend((0..2).map(|_| body(other, 50)));
        assert!(held.iter().all(Option::is_some));
        assert!(body(other, 50).is_none(), "half of the half");
        let mut growing = body(one, 4).unwrap();
        assert!(growing.grow(60 << 10).is_none());
        assert!(growing.grow(80 << 10).is_some(), "a long one has nothing among the short ones");
        drop((growing, held));
        for room in [&budget.short, &budget.long] {
            let taken = room.taken.lock();
            assert!(taken.by_all == 0 && taken.by.is_empty(), "{taken:?}");
        }
    }
}
