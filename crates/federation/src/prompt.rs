//! Questions that somebody waits for and can do without: given up soon, and not put again for a while to a server that did not
//! answer, so that one that is slow does not slow everybody down.

use std::{collections::BTreeMap, time::Duration};

use chappe_rooms::PeerError;
use parking_lot::Mutex;
use ruma::ServerName;
use tokio::{sync::Semaphore, time::Instant};

use crate::Network;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a server is spared that was late, or answered what is no answer.
const LATE: Duration = Duration::from_secs(30);
/// How long it is spared if it does not know the question, or does not answer it for this server.
const UNWILLING: Duration = Duration::from_mins(10);
/// Such questions about one topic under way at the same time, over all servers.
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

/// A server, in lower case, and what it is asked.
type About = (String, Topic);

/// Who is spared, until when.
pub(crate) struct Prompt {
    spared: Mutex<BTreeMap<About, Instant>>,
    people: Semaphore,
    infos: Semaphore,
    rooms: Semaphore,
}

impl Default for Prompt {
    fn default() -> Self {
        let [people, infos, rooms] = [(); 3].map(|()| Semaphore::new(AT_ONCE));
        Self { spared: Mutex::default(), people, infos, rooms }
    }
}

impl Prompt {
    /// The places of a topic: questions about one do not wait for those about another.
    fn places(&self, topic: Topic) -> &Semaphore {
        match topic {
            Topic::People => &self.people,
            Topic::Infos => &self.infos,
            Topic::Rooms => &self.rooms,
        }
    }

    fn is_spared(&self, about: &About, now: Instant) -> bool {
        self.spared.lock().get(about).is_some_and(|until| *until > now)
    }

    fn spare(&self, about: About, until: Instant, now: Instant) {
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
        let about = (to.as_str().to_ascii_lowercase(), topic);
        let unreachable = || PeerError::Unreachable(to.to_owned());
        if prompt.is_spared(&about, world.instant()) {
            return Err(unreachable());
        }
        // That others wait already says nothing of this server.
        let place = world.timeout(PATIENCE, prompt.places(topic).acquire()).await;
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
