//! Answers that are there until they are fetched: so many bytes of them, of one server and of all.

use std::{
    io,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use ruma::OwnedServerName;
use tokio::time::Instant;

/// Bytes given to the connection at once. An answer that is no longer is gone with that, and needs no room.
pub(super) const PIECE: usize = 64 << 10;
/// An answer of which nothing was fetched for so long gives way to another.
const IDLE: Duration = Duration::from_secs(10);

/// Room for answers.
pub(super) struct Shelf {
    all: usize,
    share: usize,
    /// The oldest first. They belong to the connections that they go to.
    kept: Mutex<Vec<Weak<Kept>>>,
}

/// An answer, until it is fetched or was let go.
pub(super) struct Kept {
    origin: OwnedServerName,
    /// The length of the whole: its memory is given back at once.
    bytes: usize,
    rest: Mutex<Option<Rest>>,
}

/// What was not given out yet, and when something was for the last time.
struct Rest {
    body: Bytes,
    fetched_at: Instant,
}

impl Shelf {
    /// So many bytes in all, and of one server; a single answer of a server may be longer, as may a single one of all.
    pub(super) fn new(all: usize, share: usize) -> Self {
        Self { all, share, kept: Mutex::default() }
    }

    /// Puts an answer for `origin` there; none if there is no room for it.
    pub(super) fn put(&self, origin: OwnedServerName, body: Bytes, now: Instant) -> Option<Arc<Kept>> {
        let mut list = self.kept.lock();
        list.retain(|one| one.upgrade().is_some_and(|one| one.is_there()));
        let kept: Vec<Arc<Kept>> = list.iter().filter_map(Weak::upgrade).collect();
        let bytes = body.len();
        make_room(&kept, |one| one.origin == origin, (bytes, self.share), now)?;
        make_room(&kept, |_| true, (bytes, self.all), now)?;
        let rest = Mutex::new(Some(Rest { body, fetched_at: now }));
        let one = Arc::new(Kept { origin, bytes, rest });
        list.push(Arc::downgrade(&one));
        Some(one)
    }
}

/// Lets go of those that nobody fetches, the oldest first, until so many bytes fit beside those that count; none if they do
/// not. Alone an answer always fits.
fn make_room(
    kept: &[Arc<Kept>],
    counts: impl Fn(&Kept) -> bool,
    (bytes, limit): (usize, usize),
    now: Instant,
) -> Option<()> {
    let counted: Vec<&Arc<Kept>> = kept.iter().filter(|one| one.is_there() && counts(one)).collect();
    let mut sum: usize = counted.iter().map(|one| one.bytes).sum();
    for one in &counted {
        if sum + bytes <= limit {
            break;
        }
        if one.is_idle(now) {
            one.let_go();
            sum -= one.bytes;
        }
    }
    (sum == 0 || sum + bytes <= limit).then_some(())
}

impl Kept {
    fn is_there(&self) -> bool {
        self.rest.lock().is_some()
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.rest.lock().as_ref().is_some_and(|rest| now.duration_since(rest.fetched_at) >= IDLE)
    }

    /// From now on it cannot be fetched.
    pub(super) fn let_go(&self) {
        self.rest.lock().take();
    }

    /// The next piece of it, a copy: what is on its way shall not keep the whole. None at its end, and an error once it was let
    /// go.
    pub(super) fn next_piece(&self, now: Instant) -> Option<io::Result<Bytes>> {
        let mut kept = self.rest.lock();
        let Some(rest) = kept.as_mut() else { return Some(Err(io::ErrorKind::TimedOut.into())) };
        rest.fetched_at = now;
        let piece = rest.body.split_to(rest.body.len().min(PIECE));
        (!piece.is_empty()).then(|| Ok(Bytes::copy_from_slice(&piece)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use ruma::OwnedServerName;
    use tokio::time::Instant;

    use super::{IDLE, Kept, PIECE, Shelf};

    fn server(number: usize) -> OwnedServerName {
        OwnedServerName::try_from(format!("s{number}.example")).unwrap()
    }

    fn put(shelf: &Shelf, number: usize, pieces: usize, now: Instant) -> Option<Arc<Kept>> {
        shelf.put(server(number), Bytes::from(vec![b'x'; pieces * PIECE]), now)
    }

    #[test]
    fn a_server_has_its_share_and_all_have_so_much() {
        let (shelf, now) = (Shelf::new(8 * PIECE, 3 * PIECE), Instant::now());
        let long = put(&shelf, 0, 5, now).unwrap();
        assert!(put(&shelf, 0, 1, now).is_none(), "beside its long one");
        let other = put(&shelf, 1, 3, now).unwrap();
        assert!(put(&shelf, 2, 1, now).is_none(), "all have so much");
        drop(long);
        assert!(put(&shelf, 1, 1, now).is_none(), "it has its share");
        let pieces = (0..3).map(|_| other.next_piece(now).unwrap().unwrap().len());
        assert_eq!(pieces.sum::<usize>(), 3 * PIECE);
        assert!(other.next_piece(now).is_none());
        drop(other);
        assert!(put(&shelf, 3, 20, now).is_some(), "alone it fits");
    }

    #[test]
    fn what_nobody_fetches_gives_way_and_what_is_being_fetched_does_not() {
        let (shelf, now) = (Shelf::new(4 * PIECE, 2 * PIECE), Instant::now());
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
}
