//! Answers that are there until they are fetched: so many bytes of them, of one client and of all.

use std::{
    io,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Bytes given to the connection at once. An answer that is no longer is gone with that, and needs no room.
pub const IN_ONE_PIECE: usize = 64 << 10;
/// An answer of which nothing was fetched for so long gives way to another.
const IDLE: Duration = Duration::from_secs(10);
/// How long a client may take to fetch an answer in any case, before it gives way to another; a second more for every piece that
/// was fetched, and this at most.
const KEPT_FOR: Duration = Duration::from_mins(1);
const LONGEST: Duration = Duration::from_mins(15);

/// Room for answers, each of which belongs to a client `K`.
pub struct Shelf<K> {
    all: usize,
    /// What one client has; half of what the others leave if there is none.
    share: Option<usize>,
    /// The oldest first. They belong to the connections that they go to.
    kept: Mutex<Vec<Weak<Kept<K>>>>,
}

/// An answer, until it is fetched or was let go.
pub struct Kept<K> {
    client: K,
    /// The length of the whole: its memory is given back at once.
    bytes: usize,
    put_at: Instant,
    /// It cannot be asked for again: it gives way to no other.
    used_up: bool,
    rest: Mutex<Option<Rest>>,
}

/// What was not given out yet, and when something was for the last time.
struct Rest {
    body: Bytes,
    fetched_at: Instant,
}

impl<K: PartialEq> Shelf<K> {
    /// So many bytes in all, and of one client; a single answer of a client may be longer, as may a single one of all. What is
    /// fetched at all stays: whoever keeps it here has time limits of its own.
    pub fn new(all: usize, share: usize) -> Self {
        Self { all, share: Some(share), kept: Mutex::default() }
    }

    /// So many bytes in all, and of one client half of what the others leave, so that there is always some left; a single answer
    /// of all may be longer. What is fetched at less than a piece a second gives way as well.
    pub fn of_halves(all: usize) -> Self {
        Self { all, share: None, kept: Mutex::default() }
    }

    /// Puts an answer for `client` there; none if there is no room for it.
    pub fn put(&self, client: K, body: Bytes, now: Instant) -> Option<Arc<Kept<K>>> {
        let mut list = self.kept.lock();
        let there = those_there(&mut list);
        let (idle, others): (Vec<_>, Vec<_>) = there.iter().partition(|one| self.gives_way(one, now));
        if !self.fits(sums(others, &client), body.len()) {
            return None;
        }
        self.make_room(&there, idle, (&client, body.len()));
        Some(keep(&mut list, (client, false), body, now))
    }

    /// The same for an answer to what was done already. If there is no room for it other answers of its client give way, though
    /// they are being fetched, and it is put there in any case. If something was `used_up` for it, it gives way to no other.
    pub fn put_anyway(&self, client: K, body: Bytes, used_up: bool, now: Instant) -> Arc<Kept<K>> {
        let mut list = self.kept.lock();
        let there = those_there(&mut list);
        let may_go =
            there.iter().filter(|one| self.gives_way(one, now) || (one.client == client && !one.used_up));
        self.make_room(&there, may_go.collect(), (&client, body.len()));
        keep(&mut list, (client, used_up), body, now)
    }

    /// Lets go of those that may go, those of `client` before others and the oldest first, until so many bytes of it fit.
    fn make_room(
        &self,
        there: &[Arc<Kept<K>>],
        mut may_go: Vec<&Arc<Kept<K>>>,
        (client, bytes): (&K, usize),
    ) {
        may_go.sort_by_key(|one| one.client != *client);
        let (mut own, mut others) = sums(there, client);
        for one in may_go {
            if self.fits((own, others), bytes) {
                return;
            }
            one.let_go();
            *(if one.client == *client { &mut own } else { &mut others }) -= one.bytes;
        }
    }

    /// Whether so many bytes of a client fit beside its own and those of others.
    fn fits(&self, (own, others): (usize, usize), bytes: usize) -> bool {
        if own + others == 0 {
            return true;
        }
        match self.share {
            Some(share) => (own == 0 || own + bytes <= share) && own + others + bytes <= self.all,
            None => own + bytes <= self.all.saturating_sub(others) / 2,
        }
    }

    /// Whether nobody fetches it, or so slowly that it gives way.
    fn gives_way(&self, one: &Kept<K>, now: Instant) -> bool {
        if one.used_up {
            return false;
        }
        let rest = one.rest.lock();
        let Some(Rest { body, fetched_at }) = &*rest else { return true };
        let is_late = || now.duration_since(one.put_at) >= time_for(one.bytes - body.len());
        now.duration_since(*fetched_at) >= IDLE || (self.share.is_none() && is_late())
    }
}

/// Those that are there still, the oldest first.
fn those_there<K>(list: &mut Vec<Weak<Kept<K>>>) -> Vec<Arc<Kept<K>>> {
    list.retain(|one| one.upgrade().is_some_and(|one| one.is_there()));
    list.iter().filter_map(Weak::upgrade).collect()
}

/// The bytes of a client, and those of others.
fn sums<'a, K: PartialEq + 'a>(
    kept: impl IntoIterator<Item = &'a Arc<Kept<K>>>,
    client: &K,
) -> (usize, usize) {
    let (mut own, mut others) = (0, 0);
    for one in kept {
        *(if one.client == *client { &mut own } else { &mut others }) += one.bytes;
    }
    (own, others)
}

fn keep<K>(
    list: &mut Vec<Weak<Kept<K>>>,
    (client, used_up): (K, bool),
    body: Bytes,
    now: Instant,
) -> Arc<Kept<K>> {
    let (bytes, rest) = (body.len(), Mutex::new(Some(Rest { body, fetched_at: now })));
    let one = Arc::new(Kept { client, bytes, put_at: now, used_up, rest });
    list.push(Arc::downgrade(&one));
    one
}

/// How long a client may take for so many bytes.
fn time_for(bytes: usize) -> Duration {
    let earned = Duration::from_secs((bytes / IN_ONE_PIECE) as u64);
    KEPT_FOR.saturating_add(earned).min(LONGEST)
}

impl<K> Kept<K> {
    fn is_there(&self) -> bool {
        self.rest.lock().is_some()
    }

    /// From now on it cannot be fetched.
    pub fn let_go(&self) {
        self.rest.lock().take();
    }

    /// How many bytes of it were fetched until now; none if it was let go.
    pub fn fetched(&self) -> Option<u64> {
        self.rest.lock().as_ref().map(|rest| (self.bytes - rest.body.len()) as u64)
    }

    /// The next piece of it, a copy: what is on its way shall not keep the whole. None at its end, and an error once it was let
    /// go.
    pub fn next_piece(&self, now: Instant) -> Option<io::Result<Bytes>> {
        let mut kept = self.rest.lock();
        let Some(rest) = kept.as_mut() else { return Some(Err(io::ErrorKind::TimedOut.into())) };
        rest.fetched_at = now;
        let piece = rest.body.split_to(rest.body.len().min(IN_ONE_PIECE));
        (!piece.is_empty()).then(|| Ok(Bytes::copy_from_slice(&piece)))
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use bytes::Bytes;
    use tokio::time::Instant;

    use super::{IDLE, IN_ONE_PIECE, Kept, Shelf};

    fn put(shelf: &Shelf<usize>, client: usize, pieces: usize, now: Instant) -> Option<Arc<Kept<usize>>> {
        shelf.put(client, Bytes::from(vec![b'x'; pieces * IN_ONE_PIECE]), now)
    }

    #[test]
    fn a_client_has_its_share_and_all_have_so_much() {
        let (shelf, now) = (Shelf::new(8 * IN_ONE_PIECE, 3 * IN_ONE_PIECE), Instant::now());
        let long = put(&shelf, 0, 5, now).unwrap();
        assert!(put(&shelf, 0, 1, now).is_none(), "beside its long one");
        let other = put(&shelf, 1, 3, now).unwrap();
        assert!(put(&shelf, 2, 1, now).is_none(), "all have so much");
        drop(long);
        assert!(put(&shelf, 1, 1, now).is_none(), "it has its share");
        let pieces = (0..3).map(|_| other.next_piece(now).unwrap().unwrap().len());
        assert_eq!(pieces.sum::<usize>(), 3 * IN_ONE_PIECE);
        assert_eq!(other.fetched(), Some(3 * IN_ONE_PIECE as u64));
        assert!(other.next_piece(now).is_none());
        drop(other);
        assert!(put(&shelf, 3, 20, now).is_some(), "alone it fits");
    }

    #[test]
    fn what_nobody_fetches_gives_way_and_what_is_being_fetched_does_not() {
        let (shelf, now) = (Shelf::new(4 * IN_ONE_PIECE, 2 * IN_ONE_PIECE), Instant::now());
        let left = [put(&shelf, 0, 2, now).unwrap(), put(&shelf, 1, 2, now).unwrap()];
        assert!(put(&shelf, 2, 1, now).is_none());
        let later = now + IDLE;
        left[0].next_piece(later).unwrap().unwrap();
        let next = put(&shelf, 2, 1, later).unwrap();
        assert!(left[0].next_piece(later).unwrap().is_ok(), "it was being fetched");
        assert!(left[1].next_piece(later).unwrap().is_err());
        assert!(put(&shelf, 0, 1, later).is_none(), "its own is being fetched");
        assert!(next.next_piece(later).unwrap().is_ok());
    }

    #[test]
    fn a_client_has_half_of_what_the_others_leave() {
        let (shelf, now) = (Shelf::of_halves(16 * IN_ONE_PIECE), Instant::now());
        let held: Vec<_> = [(0, 8), (1, 4), (2, 2)].map(|(client, n)| put(&shelf, client, n, now)).into();
        assert!(held.iter().all(Option::is_some));
        assert!(put(&shelf, 0, 1, now).is_none() && put(&shelf, 1, 1, now).is_none());
        assert!(put(&shelf, 3, 2, now).is_none(), "more than half of the rest");
        assert!(put(&shelf, 3, 1, now).is_some(), "few clients keep out all others");
        drop(held);
        assert!(put(&shelf, 0, 20, now).is_some(), "alone it fits");
    }

    #[test]
    fn what_a_client_fetches_too_slowly_gives_way() {
        let (shelf, now) = (Shelf::of_halves(200 * IN_ONE_PIECE), Instant::now());
        let (slow, steady) = (put(&shelf, 0, 100, now).unwrap(), put(&shelf, 1, 50, now).unwrap());
        let mut at = now;
        for second in 0..70 {
            at = now + Duration::from_secs(second);
            if second < 40 {
                steady.next_piece(at).unwrap().unwrap();
            }
            if second % 9 == 0 {
                slow.next_piece(at).unwrap().unwrap();
                steady.next_piece(at).unwrap().unwrap();
            }
            assert_eq!(put(&shelf, 2, 26, at).is_some(), second >= 68, "after {second} seconds");
        }
        assert!(slow.next_piece(at).unwrap().is_err());
        assert!(steady.next_piece(at).unwrap().is_ok());
    }

    #[test]
    fn what_cannot_be_asked_for_again_is_kept_in_place_of_others_of_its_client() {
        let (shelf, now) = (Shelf::of_halves(8 * IN_ONE_PIECE), Instant::now());
        let (own, other) = (put(&shelf, 0, 4, now).unwrap(), put(&shelf, 1, 2, now).unwrap());
        let body = Bytes::from(vec![b'x'; 4 * IN_ONE_PIECE]);
        let first = shelf.put_anyway(0, body.clone(), false, now);
        assert!(own.next_piece(now).unwrap().is_err() && first.next_piece(now).unwrap().is_ok());
        let second = shelf.put_anyway(0, body.clone(), true, now);
        assert!(first.next_piece(now).unwrap().is_err(), "a client has as much as it likes");
        let third = shelf.put_anyway(0, body, true, now);
        for kept in [&second, &third, &other] {
            assert!(kept.next_piece(now).unwrap().is_ok());
        }
        let later = now + Duration::from_mins(20);
        assert!(put(&shelf, 2, 1, later).is_none(), "what was used up gives way to nothing");
        assert!(second.next_piece(later).unwrap().is_ok() && third.next_piece(later).unwrap().is_ok());
    }
}
