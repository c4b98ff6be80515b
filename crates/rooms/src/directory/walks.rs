//! What is left of trees that are shown page by page: the next page goes on where the last one ended, so that nobody is
//! asked twice, and what other servers tell meanwhile moves no place.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId, UserId};
use tokio::time::Instant;

use super::hierarchy::Node;

/// For how long a token is good.
const KEPT: Duration = Duration::from_mins(10);
/// Tokens at most, those of one user at most, and about how many bytes for all of them.
const TOKENS: usize = 1_000;
const TOKENS_OF_ONE: usize = 20;
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
        self.add(Kept { token, tree, rest: Arc::new(rest), until: now + KEPT, bytes }, now);
    }

    /// Whoever has too many loses the oldest; where all have too many, whoever takes up the most.
    fn add(&self, new: Kept, now: Instant) {
        let user = new.tree.user.clone();
        let mut kept = self.0.lock();
        kept.retain(|kept| kept.until > now);
        kept.push_back(new);
        if kept.iter().filter(|kept| kept.tree.user == user).count() > TOKENS_OF_ONE {
            drop_oldest(&mut kept, &user);
        }
        while kept.len() > TOKENS || kept.iter().map(|kept| kept.bytes).sum::<usize>() > BYTES {
            let Some(user) = largest(&kept) else { return };
            drop_oldest(&mut kept, &user);
        }
    }
}

fn drop_oldest(kept: &mut VecDeque<Kept>, user: &UserId) {
    if let Some(at) = kept.iter().position(|kept| kept.tree.user == user) {
        kept.remove(at);
    }
}

/// Whose trees take up the most.
fn largest(kept: &VecDeque<Kept>) -> Option<OwnedUserId> {
    let mut bytes: HashMap<&UserId, usize> = HashMap::new();
    for kept in kept {
        *bytes.entry(&kept.tree.user).or_default() += kept.bytes;
    }
    bytes.into_iter().max_by_key(|(_, bytes)| *bytes).map(|(user, _)| user.to_owned())
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, sync::Arc};

    use ruma::{UserId, owned_room_id, owned_user_id};
    use tokio::time::Instant;

    use super::{BYTES, KEPT, Kept, Rest, TOKENS, TOKENS_OF_ONE, Tree, Walks};

    fn tree_of(name: &str) -> Tree {
        let user = UserId::parse(format!("@{name}:x.fr")).unwrap();
        Tree { user, space: owned_room_id!("!s:x.fr"), max_depth: 3, suggested_only: false }
    }

    fn rest() -> Rest {
        Rest { stack: Vec::new(), visited: HashSet::from([owned_room_id!("!s:x.fr")]) }
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_are_good_for_one_tree_and_some_time_and_are_no_more_than_fit() {
        let (walks, start) = (Walks::default(), Instant::now());
        let tree = tree_of("a");
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
        for number in 0..TOKENS_OF_ONE {
            assert!(is_kept("second", &tree, start + KEPT));
            walks.keep(number.to_string(), tree.clone(), rest(), start + KEPT);
        }
        assert!(!is_kept("second", &tree, start + KEPT));
        assert!(is_kept("0", &tree, start + KEPT));
    }

    #[test]
    fn who_takes_up_the_most_gives_way() {
        let (walks, now) = (Walks::default(), Instant::now());
        let is_kept = |token: &str, user: &str| walks.rest_of(token, &tree_of(user), now).is_some();
        let add = |token: &str, user: &str, bytes| {
            let (tree, rest) = (tree_of(user), Arc::new(rest()));
            walks.add(Kept { token: token.to_owned(), tree, rest, until: now + KEPT, bytes }, now);
        };
        add("small", "a", BYTES / 10);
        for number in 0..TOKENS {
            add(&number.to_string(), "b", BYTES / 4);
        }
        assert!(is_kept("small", "a"));
        add("next", "a", BYTES / 5);
        assert!(is_kept("small", "a") && is_kept("next", "a"), "whoever comes later stays too");
        assert!(is_kept(&(TOKENS - 1).to_string(), "b"));
        for number in 0..TOKENS {
            add("one", &format!("u{number}"), 1);
        }
        assert_eq!(walks.0.lock().len(), TOKENS);
        assert!(is_kept("one", "u0"));
    }
}
