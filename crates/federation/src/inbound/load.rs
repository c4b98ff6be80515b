//! What of received transactions is under way: by rooms and by bytes, of each server and of all.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};

/// Rooms' worth of events of one server that are worked on; from then on it has to wait with its next transaction.
const ROOMS_OF_ONE_SERVER: usize = 100;
/// Bytes of transactions that are worked on, of one server and of all; what does not fit has to wait. One server has no more
/// than half of what the others leave, so that there is always some left.
const BYTES_OF_ONE_SERVER: usize = 32 << 20;
const BYTES_OF_ALL: usize = 128 << 20;
/// A server of which nothing is worked on has so many bytes taken in all the same, up to so many of all.
const FIRST_BYTES: usize = 1 << 20;
const FIRST_BYTES_OF_ALL: usize = 512 << 20;

/// All of it: a handle, clones share it.
#[derive(Clone, Default)]
pub(super) struct Loads(Arc<Mutex<BTreeMap<OwnedServerName, Sum>>>);

#[derive(Clone, Copy, Default)]
struct Sum {
    /// Rooms' worth of events.
    rooms: usize,
    /// Bytes of transactions.
    bytes: usize,
}

/// A part of it, for as long as that is worked on.
pub(super) struct Load {
    loads: Loads,
    origin: OwnedServerName,
    sum: Sum,
}

impl Loads {
    /// Takes in a transaction of so many bytes; none while there is no room for it.
    pub(super) fn admit(&self, origin: &ServerName, bytes: usize) -> Option<Load> {
        let mut loads = self.0.lock();
        let own = loads.get(origin).copied().unwrap_or_default();
        let of_all: usize = loads.values().map(|sum| sum.bytes).sum();
        let left = BYTES_OF_ALL.saturating_sub(of_all - own.bytes);
        let fits = own.rooms < ROOMS_OF_ONE_SERVER && own.bytes + bytes <= BYTES_OF_ONE_SERVER.min(left / 2);
        let is_first =
            own.rooms == 0 && own.bytes == 0 && bytes <= FIRST_BYTES && of_all + bytes <= FIRST_BYTES_OF_ALL;
        (fits || is_first).then(|| self.add(&mut loads, origin, Sum { rooms: 0, bytes }))
    }

    /// A room's worth of events of a transaction that was taken in.
    pub(super) fn begin_room(&self, origin: &ServerName) -> Load {
        self.add(&mut self.0.lock(), origin, Sum { rooms: 1, bytes: 0 })
    }

    fn add(&self, loads: &mut BTreeMap<OwnedServerName, Sum>, origin: &ServerName, sum: Sum) -> Load {
        let own = loads.entry(origin.to_owned()).or_default();
        own.rooms += sum.rooms;
        own.bytes += sum.bytes;
        Load { loads: self.clone(), origin: origin.to_owned(), sum }
    }

    /// Whether nothing is under way.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

impl Load {
    /// So many of its bytes, to be given back on their own.
    pub(super) fn split_off(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.sum.bytes);
        self.sum.bytes -= bytes;
        Self { loads: self.loads.clone(), origin: self.origin.clone(), sum: Sum { rooms: 0, bytes } }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let mut loads = self.loads.0.lock();
        if let Some(own) = loads.get_mut(&self.origin) {
            own.rooms -= self.sum.rooms;
            own.bytes -= self.sum.bytes;
            if own.rooms == 0 && own.bytes == 0 {
                loads.remove(&self.origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::OwnedServerName;

    use super::{BYTES_OF_ONE_SERVER, FIRST_BYTES, FIRST_BYTES_OF_ALL, Loads};

    fn server(number: usize) -> OwnedServerName {
        OwnedServerName::try_from(format!("s{number}.example")).unwrap()
    }

    #[test]
    fn transactions_have_so_much_room_of_one_server_and_of_all() {
        let loads = Loads::default();
        let half = BYTES_OF_ONE_SERVER / 2;
        let held = [loads.admit(&server(0), half), loads.admit(&server(0), half)];
        assert!(held.iter().all(Option::is_some));
        assert!(loads.admit(&server(0), 1).is_none(), "one server has so much");
        let more: Vec<_> = (1..=2).map(|n| loads.admit(&server(n), BYTES_OF_ONE_SERVER)).collect();
        assert!(more.iter().all(Option::is_some));
        assert!(loads.admit(&server(9), BYTES_OF_ONE_SERVER).is_none(), "all have so much");
        assert!(loads.admit(&server(9), half).is_some(), "there is no half left");
        drop(held);
        assert!(loads.admit(&server(9), BYTES_OF_ONE_SERVER).is_some());
        drop(more);
        assert!(loads.is_empty());
    }

    #[test]
    fn servers_that_take_all_they_can_leave_some_to_others() {
        let loads = Loads::default();
        let mut held = Vec::new();
        for n in 0..20 {
            let longest = (0..=25).rev().find_map(|shift| loads.admit(&server(n), 1 << shift));
            held.extend(longest);
            while let Some(more) = loads.admit(&server(n), 64 << 10) {
                held.push(more);
            }
        }
        let first = loads.admit(&server(20), FIRST_BYTES);
        assert!(first.is_some(), "a server of which nothing is worked on has to wait");
        assert!(loads.admit(&server(20), 1).is_none(), "one after the other");
        drop(first);
        held.extend((30..1_030).map_while(|n| loads.admit(&server(n), FIRST_BYTES)));
        assert!(held.len() < FIRST_BYTES_OF_ALL / FIRST_BYTES, "there is no end");
    }

    #[test]
    fn parts_are_given_back_on_their_own() {
        let loads = Loads::default();
        let mut whole = loads.admit(&server(0), BYTES_OF_ONE_SERVER).unwrap();
        let part = whole.split_off(BYTES_OF_ONE_SERVER / 4);
        drop(whole);
        assert!(loads.admit(&server(0), BYTES_OF_ONE_SERVER).is_none());
        assert!(loads.admit(&server(0), BYTES_OF_ONE_SERVER / 2).is_some());
        drop(part);
        assert!(loads.is_empty());
    }
}
