//! Saying something to everybody, or to all whose address is of some domains, in the rooms of the server's notices.

use chappe_accounts::{UserFilter, UserKind};
use chappe_identity::{Email, InvalidRule, Rule, Rules};
use chappe_rooms::{Notice, Rooms};
use futures_util::{StreamExt, TryStreamExt, stream};
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Doing, Stop, Work};
use crate::Error;

/// Users told before it is written down how far the work has come.
const AT_ONCE: usize = 100;
/// Users told at the same time.
const SIDE_BY_SIDE: usize = 4;

/// Something to be said, and to how many it has been.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Announce {
    /// Whom: domains, `*.` and a domain, addresses; everybody if there are none.
    pub to: Vec<String>,
    /// The content of the message.
    pub content: Map<String, Value>,
    /// The last user whose turn it was.
    #[serde(default)]
    pub after: Option<OwnedUserId>,
    /// How many were told.
    #[serde(default)]
    pub told: u64,
    /// How many could not be told.
    #[serde(default)]
    pub failed: u64,
}

impl Announce {
    /// A message, once it is clear to whom, and that the server speaks at all.
    pub(crate) fn new(rooms: &Rooms, to: Vec<String>, content: Map<String, Value>) -> Result<Self, Error> {
        if rooms.config().notices.is_none() {
            return Err(Error::Invalid("server notices are not configured on this server".to_owned()));
        }
        rules(&to).map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(Self { to, content, after: None, told: 0, failed: 0 })
    }

    /// Goes through the accounts of people. Who was told before an interruption is not told again.
    pub(super) async fn run(mut self, doing: &mut Doing<'_>) -> Result<(), Stop> {
        let rules = rules(&self.to).map_err(|error| Stop::Failed(error.to_string()))?;
        let everybody = UserFilter::default();
        loop {
            let users = doing.jobs.accounts.users(self.after.as_deref(), AT_ONCE, &everybody).await;
            let users = users.map_err(Error::from)?;
            let Some((last, _)) = users.last() else { return Ok(()) };
            let last = last.clone();
            let people = users.into_iter().filter(|(_, user)| user.kind == UserKind::User);
            let telling = stream::iter(people.map(|(user, _)| self.tell(doing, &rules, user)));
            let told: Vec<Option<bool>> = telling.buffer_unordered(SIDE_BY_SIDE).try_collect().await?;
            let count = |wanted: bool| told.iter().filter(|told| **told == Some(wanted)).count() as u64;
            (self.told, self.failed) = (self.told + count(true), self.failed + count(false));
            self.after = Some(last);
            doing.note(&Work::Announce(self.clone())).await?;
        }
    }

    /// Tells one user; gives whether that worked, and `None` for those whom it does not concern.
    async fn tell(&self, doing: &Doing<'_>, rules: &Rules, user: OwnedUserId) -> Result<Option<bool>, Stop> {
        if doing.jobs.world.is_stopping() {
            return Err(Stop::Later);
        }
        if !rules.is_empty() && !concerns(doing, rules, &user).await? {
            return Ok(None);
        }
        let content = self.content.clone();
        let notice = Notice { kind: "m.room.message".into(), state_key: None, content };
        match doing.jobs.rooms.notify(&user, notice, Some(doing.id.into())).await {
            Ok(_) => Ok(Some(true)),
            Err(chappe_rooms::Error::Retry) => Err(Stop::Later),
            Err(error) => {
                tracing::warn!(job = doing.id, %user, %error, "a user was not told");
                Ok(Some(false))
            }
        }
    }
}

async fn concerns(doing: &Doing<'_>, rules: &Rules, user: &UserId) -> Result<bool, Stop> {
    let addresses = doing.jobs.accounts.threepids(user).await.map_err(Error::from)?;
    let emails = addresses.iter().filter_map(|found| Email::parse(&found.address).ok());
    Ok(emails.into_iter().any(|email| rules.matching(&email).is_some()))
}

fn rules(to: &[String]) -> Result<Rules, InvalidRule> {
    to.iter().map(|rule| rule.parse::<Rule>()).collect()
}
