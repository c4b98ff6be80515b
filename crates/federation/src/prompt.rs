//! Questions that somebody waits for and can do without: given up soon, and not put again for a while to a server that did not
//! answer, so that one that is slow does not slow everybody down.

use std::{collections::BTreeMap, time::Duration};

use chappe_rooms::PeerError;
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tokio::{sync::Semaphore, time::Instant};

use crate::Network;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a server is spared that was late, or answered what is no answer.
const LATE: Duration = Duration::from_secs(30);
/// How long it is spared if it does not know the question, or does not answer it for this server.
const UNWILLING: Duration = Duration::from_mins(10);
/// Such questions under way at the same time, over all servers.
const AT_ONCE: usize = 256;

/// What is asked; a server may answer one and not know another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    /// Who is there.
    People,
    /// How accounts stand.
    Infos,
    /// Which rooms are listed.
    Rooms,
}

/// Who is spared, until when.
pub(crate) struct Prompt {
    spared: Mutex<BTreeMap<(OwnedServerName, Topic), Instant>>,
    places: Semaphore,
}

impl Default for Prompt {
    fn default() -> Self {
        Self { spared: Mutex::default(), places: Semaphore::new(AT_ONCE) }
    }
}

impl Prompt {
    fn is_spared(&self, about: &(OwnedServerName, Topic), now: Instant) -> bool {
        self.spared.lock().get(about).is_some_and(|until| *until > now)
    }

    fn spare(&self, about: (OwnedServerName, Topic), until: Instant, now: Instant) {
        let mut spared = self.spared.lock();
        spared.retain(|_, until| *until > now);
        spared.insert(about, until);
    }
}

impl Network {
    /// Puts a question to `to`, unless it is spared; a server that cannot be reached at all is not asked again before its wait
    /// is over, like for any other request.
    pub(crate) async fn promptly<T>(
        &self,
        to: &ServerName,
        topic: Topic,
        question: impl Future<Output = Result<T, PeerError>>,
    ) -> Result<T, PeerError> {
        let (prompt, world) = (self.prompt(), self.world());
        let about = (to.to_owned(), topic);
        let unreachable = || PeerError::Unreachable(to.to_owned());
        if prompt.is_spared(&about, world.instant()) {
            return Err(unreachable());
        }
        // That others wait already says nothing of this server.
        let place = world.timeout(PATIENCE, prompt.places.acquire()).await;
        let _place = place.and_then(Result::ok).ok_or_else(unreachable)?;
        let answer = world.timeout(PATIENCE, question).await;
        let spared = match &answer {
            None | Some(Err(PeerError::Malformed(_))) => LATE,
            Some(Err(PeerError::Refused { .. })) => UNWILLING,
            Some(Ok(_) | Err(PeerError::Unreachable(_))) => {
                return answer.unwrap_or_else(|| Err(unreachable()));
            }
        };
        let now = world.instant();
        prompt.spare(about, now + spared, now);
        answer.unwrap_or_else(|| Err(unreachable()))
    }
}
