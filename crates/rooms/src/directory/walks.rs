//! What is left of trees that are shown page by page: the next page goes on where the last one ended, so that nobody is
//! asked twice, and what other servers tell meanwhile moves no place.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId};
use tokio::time::Instant;

use super::hierarchy::Node;

/// For how long a token is good.
const KEPT: Duration = Duration::from_mins(10);
/// Tokens at most, and about how many bytes for all of them.
const TOKENS: usize = 1_000;
const BYTES: usize = 64 << 20;
/// About what an entry of a set takes beside its text.
const ENTRY: usize = 64;

/// Who looks at the tree of which space, and at what of it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Tree {
    pub(super) user: OwnedUserId,
    pub(super) space: OwnedRoomId,
    pub(super) max_depth: u64,
    pub(super) suggested_only: bool,
}

/// What is left of a tree.
#[derive(Clone)]
pub(super) struct Rest {
    /// Rooms to be visited, the next one last.
    pub(super) stack: Vec<Node>,
    /// Rooms that were.
    pub(super) visited: HashSet<OwnedRoomId>,
}

impl Rest {
    fn bytes(&self) -> usize {
        let nodes: usize = self.stack.iter().map(Node::bytes).sum();
        let visited: usize = self.visited.iter().map(|room| room.as_str().len() + ENTRY).sum();
        nodes + visited
    }
}

struct Kept {
    token: String,
    tree: Tree,
    rest: Arc<Rest>,
    until: Instant,
    bytes: usize,
}

/// What is left of trees, by token, the oldest first.
#[derive(Default)]
pub(crate) struct Walks(Mutex<VecDeque<Kept>>);

impl Walks {
    /// What is left behind a token of this tree; it may be asked for again.
    pub(super) fn rest_of(&self, token: &str, tree: &Tree, now: Instant) -> Option<Rest> {
        let kept = self.0.lock();
        let found = kept.iter().find(|kept| kept.token == token && kept.tree == *tree && kept.until > now)?;
        let rest = Arc::clone(&found.rest);
        drop(kept);
        Some(Rest::clone(&rest))
    }

    pub(super) fn keep(&self, token: String, tree: Tree, rest: Rest, now: Instant) {
        let bytes = rest.bytes();
        let mut kept = self.0.lock();
        kept.push_back(Kept { token, tree, rest: Arc::new(rest), until: now + KEPT, bytes });
        let mut total: usize = kept.iter().map(|kept| kept.bytes).sum();
        loop {
            let is_over = kept.len() > TOKENS || total > BYTES;
            let Some(gone) = kept.pop_front_if(|first| is_over || first.until <= now) else { return };
            total -= gone.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use ruma::{owned_room_id, owned_user_id};
    use tokio::time::Instant;

    use super::{KEPT, Rest, TOKENS, Tree, Walks};

    #[tokio::test(start_paused = true)]
    async fn tokens_are_good_for_one_tree_and_some_time_and_are_no_more_than_fit() {
        let (walks, start) = (Walks::default(), Instant::now());
        let tree = Tree {
            user: owned_user_id!("@a:x.fr"),
            space: owned_room_id!("!s:x.fr"),
            max_depth: 3,
            suggested_only: false,
        };
        let rest = || Rest { stack: Vec::new(), visited: HashSet::from([owned_room_id!("!s:x.fr")]) };
        let is_kept = |token: &str, tree: &Tree, now| walks.rest_of(token, tree, now).is_some();
        walks.keep("first".to_owned(), tree.clone(), rest(), start);
        assert!(is_kept("first", &tree, start) && is_kept("first", &tree, start));
        for other in [
            Tree { user: owned_user_id!("@b:x.fr"), ..tree.clone() },
            Tree { max_depth: 4, ..tree.clone() },
            Tree { suggested_only: true, ..tree.clone() },
        ] {
            assert!(!is_kept("first", &other, start));
        }
        assert!(!is_kept("first", &tree, start + KEPT));
        walks.keep("second".to_owned(), tree.clone(), rest(), start + KEPT);
        assert!(!is_kept("first", &tree, start), "what has no use any more is dropped");
        for number in 0..TOKENS {
            assert!(is_kept("second", &tree, start + KEPT));
            walks.keep(number.to_string(), tree.clone(), rest(), start + KEPT);
        }
        assert!(!is_kept("second", &tree, start + KEPT));
        assert!(is_kept("0", &tree, start + KEPT));
    }
}
