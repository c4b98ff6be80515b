//! Other servers take somebody of whom they hear nothing for gone: of who is still there they are told again.

use std::sync::Arc;

use super::{Presence, SWEEP, gather::TOGETHER};

impl Presence {
    /// Starts the task that tells other servers again who is there; it ends with the world.
    pub(crate) fn repeat(self: &Arc<Self>) {
        let presence = self.clone();
        drop(self.world.spawn("delivery-presence-again", async move {
            while !presence.world.is_stopping() {
                let pause = if presence.tell_again() { TOGETHER } else { SWEEP };
                presence.wake.pause(pause).await;
            }
        }));
    }

    /// Tells followers of some who are due; whether there were any.
    fn tell_again(&self) -> bool {
        let mut users = self.users.lock();
        let due = users.due(self.world.instant());
        let is_any = !due.is_empty();
        if is_any {
            // Before the lock is given back, so that what changes from now on is told after it. Nobody listening is fine.
            let _ = self.news.send(due.into());
        }
        is_any
    }
}
