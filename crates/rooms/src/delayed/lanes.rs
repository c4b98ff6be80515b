//! Due delayed events on their way: those of one user one after the other, those of several side by side. Who sends what
//! takes long holds up nobody else.

use std::collections::{HashMap, HashSet, VecDeque};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use ruma::OwnedUserId;

use crate::{Result, Rooms};

/// Events on their way at a time.
const LANES: usize = 64;
/// Due events known at a time: many times what one user may have waiting.
const MOST: usize = 10_000;

pub(super) struct Lanes<'r> {
    rooms: &'r Rooms,
    /// What is taken and not yet on its way, by user.
    queues: HashMap<OwnedUserId, VecDeque<String>>,
    /// Users whose next event waits for a lane.
    turns: VecDeque<OwnedUserId>,
    /// What is taken.
    taken: HashSet<String>,
    under_way: FuturesUnordered<BoxFuture<'r, (OwnedUserId, String)>>,
}

impl<'r> Lanes<'r> {
    pub(super) fn new(rooms: &'r Rooms) -> Self {
        Self {
            rooms,
            queues: HashMap::new(),
            turns: VecDeque::new(),
            taken: HashSet::new(),
            under_way: FuturesUnordered::new(),
        }
    }

    /// Takes what is due. Gives when the next event will be.
    pub(super) async fn take(&mut self) -> Result<Option<u64>> {
        let reader = self.rooms.0.store.read();
        let (due, next) = reader.due_delayed(self.rooms.0.world.now(), MOST).await?;
        for id in due {
            if self.taken.contains(&id) {
                continue;
            }
            let Some(delayed) = reader.delayed(&id).await? else { continue };
            self.taken.insert(id.clone());
            match self.queues.get_mut(&delayed.user) {
                Some(queue) => queue.push_back(id),
                None => {
                    self.queues.insert(delayed.user.clone(), VecDeque::from([id]));
                    self.turns.push_back(delayed.user);
                }
            }
        }
        self.fill();
        Ok(next)
    }

    /// Whether more could be on its way.
    pub(super) fn have_room(&self) -> bool {
        self.under_way.len() < LANES
    }

    /// Waits until an event was dealt with; false if none is on its way.
    pub(super) async fn next(&mut self) -> bool {
        let Some((user, id)) = self.under_way.next().await else { return false };
        self.taken.remove(&id);
        if self.queues.get(&user).is_some_and(VecDeque::is_empty) {
            self.queues.remove(&user);
        } else {
            self.turns.push_back(user);
        }
        self.fill();
        true
    }

    fn fill(&mut self) {
        while self.have_room()
            && let Some(user) = self.turns.pop_front()
        {
            let Some(id) = self.queues.get_mut(&user).and_then(VecDeque::pop_front) else { continue };
            let rooms = self.rooms;
            let sent = async move {
                rooms.send_or_end(&id).await;
                (user, id)
            };
            self.under_way.push(sent.boxed());
        }
    }
}
