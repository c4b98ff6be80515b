//! Changes of presence are told together: one alone at once, those that follow once the next may be told.

use std::{sync::Arc, time::Duration};

use super::Presence;

/// After changes were told no other is told for so long.
pub(super) const TOGETHER: Duration = Duration::from_secs(1);

impl Presence {
    /// Starts the task that tells what was gathered; it ends with the world.
    pub(crate) fn tell_gathered(self: &Arc<Self>) {
        let presence = self.clone();
        drop(self.world.spawn("delivery-presence-news", async move {
            loop {
                tokio::select! {
                    biased;
                    () = presence.world.stopping() => return,
                    () = presence.gathered.notified() => {}
                }
                presence.tell().await;
                presence.wake.pause(TOGETHER).await;
            }
        }));
    }

    /// Tells followers, and those who are in a room of somebody who has changed. What comes meanwhile is told the next time.
    async fn tell(&self) {
        let (gathered, last) = self.users.lock().take_gathered();
        let mut hearing = self.wake.hear(&gathered.rooms, last);
        let own = gathered.changes.keys().filter_map(|user| self.wake.user(user));
        hearing.extend(own.filter(|signal| signal.hear(last)));
        // Nobody listening is fine: then nobody has to be told.
        let _ = self.news.send(gathered.changes.into_values().collect());
        self.wake.rouse(&hearing).await;
    }
}
