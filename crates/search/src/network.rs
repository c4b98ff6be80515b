//! People of the other servers of the network: each is asked for its own, and what it says is checked and kept for a moment.
//!
//! Specification: MSC4258.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use chappe_rooms::PeerError;
use futures_util::{StreamExt as _, stream};
use quick_cache::{Weighter, sync::Cache};
use ruma::{MxcUri, OwnedServerName, OwnedUserId, ServerName, UserId};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    People, Person, Search,
    analyze::words,
    people::{LETTERS, letters},
};

/// Servers asked at the same time for one search.
const AT_ONCE: usize = 32;
/// How long one search waits for all of them together.
const PATIENCE: Duration = Duration::from_secs(3);
/// For how long an answer is good: who hides is found elsewhere for no longer.
const KEPT: Duration = Duration::from_secs(10);
/// Answers kept, as one expects them, and bytes of all together.
const ANSWERS: usize = 2_000;
const ANSWERS_BYTES: u64 = 16 << 20;
/// Letters of a name that are shown.
const NAME: usize = 256;
/// Longest address of a picture, in bytes.
const LONGEST: usize = 1_024;

/// The directories of other servers. Every call ends within a few seconds, and fails at once for a server that did not
/// answer a moment ago; what comes is not checked yet.
#[async_trait]
pub trait Directories: Send + Sync {
    /// Asks a server for its users whom `requester`, of this server, finds.
    async fn people(
        &self,
        server: &ServerName,
        requester: &UserId,
        term: &str,
        limit: usize,
    ) -> Result<PeerPeople, PeerError>;
}

/// What another server answered.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PeerPeople {
    /// The people, each an object.
    pub results: Vec<Value>,
    /// Whether there are more.
    #[serde(default)]
    pub limited: bool,
}

/// Server, requester, term and limit: who finds whom depends on who asks.
type Asked = (OwnedServerName, OwnedUserId, String, usize);

/// An answer, and until when it is good.
type Answer = (Instant, Arc<People>);

/// What servers answered lately.
pub(crate) struct Answers(Cache<Asked, Answer, BySize>);

impl Default for Answers {
    fn default() -> Self {
        Self(Cache::with_weighter(ANSWERS, ANSWERS_BYTES, BySize))
    }
}

impl Answers {
    /// What was answered a moment ago.
    fn get(&self, asked: &Asked, now: Instant) -> Option<Arc<People>> {
        self.0.get(asked).filter(|(until, _)| *until > now).map(|(_, answer)| answer)
    }

    fn keep(&self, asked: Asked, answer: Arc<People>, now: Instant) {
        self.0.retain(|_, (until, _)| *until > now);
        self.0.insert(asked, (now + KEPT, answer));
    }
}

/// Weighs answers by about the bytes that they take up.
#[derive(Clone)]
struct BySize;

impl Weighter<Asked, Answer> for BySize {
    fn weight(&self, (server, user, term, _): &Asked, (_, people): &Answer) -> u64 {
        let of_person = |person: &Person| {
            let texts = [person.display_name.as_deref(), person.avatar_url.as_deref()];
            person.user.as_str().len() + texts.into_iter().flatten().map(str::len).sum::<usize>()
        };
        let texts = server.as_str().len() + user.as_str().len() + term.len();
        let people_texts: usize = people.results.iter().map(of_person).sum();
        let fixed = size_of::<(Asked, Answer, People)>() + people.results.len() * size_of::<Person>();
        u64::try_from(texts + people_texts + fixed).unwrap_or(u64::MAX)
    }
}

impl Search {
    /// The people found here, and behind them those whom the other servers of the network give.
    pub(crate) async fn with_others(
        &self,
        mut found: People,
        asking: &UserId,
        term: &str,
        limit: usize,
    ) -> People {
        let servers = self.0.deps.rooms.neighbours().unwrap_or_default();
        let term = term.trim();
        // Of fewer letters they find nobody.
        if servers.is_empty() || letters(&words(term)) < LETTERS {
            return found;
        }
        let answers = stream::iter(servers).map(|server| self.people_of(server, asking, term, limit));
        let mut answers = std::pin::pin!(answers.buffer_unordered(AT_ONCE));
        let mut others: Vec<Person> = Vec::new();
        let gathering = async {
            while let Some(answer) = answers.next().await {
                found.limited |= answer.limited;
                others.extend(answer.results.iter().cloned());
            }
        };
        // Whoever is late is left out.
        let _ = self.0.deps.world.timeout(PATIENCE, gathering).await;
        others.sort_by_cached_key(|person| {
            let name = person.display_name.as_deref().map(words).unwrap_or_default();
            (name.is_empty(), name, person.user.clone())
        });
        let mut known: BTreeSet<OwnedUserId> =
            found.results.iter().map(|person| person.user.clone()).collect();
        others.retain(|person| known.insert(person.user.clone()));
        found.limited |= found.results.len() + others.len() > limit;
        found.results.extend(others);
        found.results.truncate(limit);
        found
    }

    /// What one server answers, or answered a moment ago; nobody if it does not.
    async fn people_of(
        &self,
        server: OwnedServerName,
        asking: &UserId,
        term: &str,
        limit: usize,
    ) -> Arc<People> {
        let world = &self.0.deps.world;
        let key = (server, asking.to_owned(), term.to_owned(), limit);
        if let Some(answer) = self.0.answers.get(&key, world.instant()) {
            return answer;
        }
        match self.0.deps.others.people(&key.0, asking, term, limit).await {
            Ok(answer) => {
                let answer = Arc::new(checked(&answer, &key.0, limit));
                self.0.answers.keep(key, Arc::clone(&answer), world.instant());
                answer
            }
            Err(error) => {
                tracing::debug!(server = %key.0, %error, "another server told of nobody");
                Arc::default()
            }
        }
    }
}

/// Of an answer, what may be believed: each server speaks for its own users.
fn checked(answer: &PeerPeople, server: &ServerName, limit: usize) -> People {
    let mut known = BTreeSet::new();
    let mut results: Vec<Person> = answer
        .results
        .iter()
        .take(limit + 1)
        .filter_map(|entry| person(entry, server))
        .filter(|person| known.insert(person.user.clone()))
        .collect();
    let limited = answer.limited || results.len() > limit;
    results.truncate(limit);
    People { results, limited }
}

fn person(entry: &Value, server: &ServerName) -> Option<Person> {
    let text = |field: &str| entry[field].as_str().filter(|text| text.len() <= LONGEST && !text.is_empty());
    let user = UserId::parse(text("user_id")?).ok().filter(|user| user.server_name() == server)?;
    let name = entry["display_name"].as_str().filter(|name| !name.is_empty());
    let avatar = text("avatar_url").filter(|url| <&MxcUri>::from(*url).is_valid());
    Some(Person {
        user,
        display_name: name.map(|name| name.chars().take(NAME).collect()),
        avatar_url: avatar.map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use ruma::server_name;
    use serde_json::{Value, json};

    use super::{ANSWERS_BYTES, Answers, Arc, Instant, KEPT, PeerPeople, People, Person, checked};

    fn users(results: Vec<Value>, limit: usize) -> (Vec<String>, bool) {
        let answer = PeerPeople { results, limited: false };
        let people = checked(&answer, server_name!("b.test"), limit);
        (people.results.iter().map(|person| person.user.to_string()).collect(), people.limited)
    }

    #[test]
    fn a_server_speaks_for_its_own_users_alone() {
        let entry = |user: &str| json!({ "user_id": user });
        let told = vec![
            entry("@alice:a.test"),
            entry("@bob:b.test"),
            entry("@bob:b.test"),
            entry("@eve:B.test.evil"),
            entry("bob"),
            json!(7),
            json!({}),
        ];
        assert_eq!(users(told, 10), (vec!["@bob:b.test".to_owned()], false));
    }

    #[test]
    fn no_more_is_taken_than_was_asked_for() {
        let many = (0..1_000).map(|n| json!({ "user_id": format!("@u{n}:b.test") })).collect();
        let (found, limited) = users(many, 3);
        assert_eq!((found.len(), limited), (3, true));
    }

    #[test]
    fn names_and_pictures_are_what_they_should_be() {
        let told = json!({
            "user_id": "@bob:b.test", "display_name": "x".repeat(5_000), "avatar_url": "https://evil.test/1",
        });
        let answer = PeerPeople { results: vec![told], limited: true };
        let people = checked(&answer, server_name!("b.test"), 10);
        let bob = &people.results[0];
        let cut = Some("x".repeat(256));
        assert_eq!((&bob.display_name, &bob.avatar_url, people.limited), (&cut, &None, true));
    }

    #[test]
    fn answers_are_kept_for_a_moment_and_so_many_bytes() {
        let (answers, now) = (Answers::default(), Instant::now());
        let asked = |term: usize| {
            ("b.test".try_into().unwrap(), "@a:a.test".try_into().unwrap(), term.to_string(), 50)
        };
        let person = Person {
            user: "@b:b.test".try_into().unwrap(),
            display_name: Some("x".repeat(1_000)),
            avatar_url: None,
        };
        let answer = Arc::new(People { results: vec![person; 50], limited: false });
        (0..1_000).for_each(|term| answers.keep(asked(term), Arc::clone(&answer), now));
        assert!(answers.get(&asked(999), now).is_some() && answers.0.weight() <= ANSWERS_BYTES);
        answers.keep(asked(1_000), answer, now + KEPT);
        assert!(answers.get(&asked(999), now + KEPT).is_none());
        assert_eq!(answers.0.len(), 1, "those that are too old are let go");
    }
}
