//! Who is there: what is indexed of people, and whom one finds.

use std::collections::{BTreeMap, BTreeSet};

use chappe_accounts::Accounts;
use chappe_rooms::Profile;
use chappe_store::{
    EventNum, Json, Membership, Reader, RoomNid,
    accounts::{User, UserKind, Users},
    members::{OpenRooms, RoomMembers},
};
use ruma::{OwnedUserId, UserId};
use serde::Deserialize;
use tantivy::{
    TantivyDocument, Term,
    collector::TopDocs,
    query::{BooleanQuery, ConstScoreQuery, Occur, Query, TermQuery, TermSetQuery},
    schema::{IndexRecordOption, Value as _},
};

use crate::{
    Error, Inner, Search,
    analyze::{beginning, words},
    index::{Index, Op},
    schema::{LOCAL, OPEN, PersonDoc},
};

/// Words of one question at most.
const WORDS: usize = 8;
/// People looked at for one answer at most.
const LOOKED_AT: usize = 400;
/// Rooms of one person that are indexed.
const ROOMS: usize = 5_000;
/// Rooms of a user of another server whose names for them are indexed.
const NAMES: usize = 3;

/// Whom one may find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circle {
    /// Those one shares a room with, and those in rooms that anybody may enter or look into.
    Shared,
    /// All who have an account here besides.
    Everybody,
}

/// Somebody found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Who.
    pub user: OwnedUserId,
    /// What they are called.
    pub display_name: Option<String>,
    /// An `mxc:` URI.
    pub avatar_url: Option<String>,
}

/// People found, the best matches first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct People {
    /// Who was found.
    pub results: Vec<Person>,
    /// Whether there are more.
    pub limited: bool,
}

impl Search {
    /// People whose id or name has words that begin like all words of `term`, for the local user `asking`, who is
    /// found like others in rooms that are open to everybody.
    ///
    /// One question to the index, then a few look-ups for each person shown.
    ///
    /// Specification: client-server API, "User directory".
    pub async fn people(
        &self,
        asking: &UserId,
        term: &str,
        limit: usize,
        circle: Circle,
    ) -> Result<People, Error> {
        let mut asked = words(term);
        asked.truncate(WORDS);
        let Some(index) = self.fresh().await.filter(|_| !asked.is_empty() && limit > 0) else {
            return Ok(People::default());
        };
        let reader = self.0.deps.store.read();
        let rooms = joined(&reader, asking).await?;
        let mut found = People::default();
        let (mut offset, page) = (0, limit + 10);
        while offset < LOOKED_AT {
            let question =
                Question { words: asked.clone(), rooms: rooms.clone(), circle, offset, limit: page };
            let names = self.ask(index.clone(), move |index| question.ask(index)).await?;
            let last = names.len() < page;
            let seen = Seen { inner: &self.0, reader: &reader, asking, words: &asked, rooms: &rooms, circle };
            for user in &names {
                let Some(person) = seen.person(user).await? else { continue };
                if found.results.len() == limit {
                    found.limited = true;
                    return Ok(found);
                }
                found.results.push(person);
            }
            if last {
                break;
            }
            offset += page;
        }
        Ok(found)
    }
}

/// The rooms that a local user is joined to.
async fn joined(reader: &Reader<'_>, user: &UserId) -> Result<BTreeSet<RoomNid>, Error> {
    let rooms = reader.user_rooms(user).await?.into_iter();
    Ok(rooms.filter(|(_, at)| at.value.membership == Membership::Join).map(|(nid, _)| nid).collect())
}

/// The rooms that any user is joined to.
async fn rooms_of(inner: &Inner, reader: &Reader<'_>, user: &UserId) -> Result<BTreeSet<RoomNid>, Error> {
    if is_local(&inner.deps.accounts, user) {
        return joined(reader, user).await;
    }
    Ok(reader.remote_rooms(user, ROOMS).await?.into_iter().collect())
}

fn is_local(accounts: &Accounts, user: &UserId) -> bool {
    user.server_name() == accounts.server_name()
}

/// A local account that is somebody's, and open.
async fn open_account(reader: &Reader<'_>, user: &UserId) -> Result<Option<User>, Error> {
    let account = reader.get::<Users>(&user.to_owned()).await?.map(|Json(user)| user);
    Ok(account.filter(|user| user.deactivated.is_none() && user.kind != UserKind::Guest))
}

/// What a room calls one of its members.
async fn profile_in(reader: &Reader<'_>, nid: RoomNid, user: &UserId) -> Result<Option<Profile>, Error> {
    #[derive(Deserialize)]
    struct Member {
        content: Profile,
    }
    let key = (nid, Membership::Join, user.to_owned());
    let Some(num) = reader.get::<RoomMembers>(&key).await? else { return Ok(None) };
    let Some((meta, stored)) = reader.events(nid, &[num]).await?.pop() else { return Ok(None) };
    if meta.redacted_by.some().is_some() {
        return Ok(Some(Profile::default()));
    }
    Ok(Some(serde_json::from_str::<Member>(&stored.json).map(|member| member.content).unwrap_or_default()))
}

/// What the index is to have of a person. `open` are the rooms that anybody may enter or look into.
pub(crate) async fn op(
    inner: &Inner,
    reader: &Reader<'_>,
    open: &BTreeSet<RoomNid>,
    user: &UserId,
) -> Result<Op, Error> {
    let local = is_local(&inner.deps.accounts, user);
    let rooms = rooms_of(inner, reader, user).await?;
    let gone = if local { open_account(reader, user).await?.is_none() } else { rooms.is_empty() };
    if gone {
        return Ok(Op::Nobody(user.to_string()));
    }
    let mut known: BTreeSet<String> = words(user.as_str()).into_iter().collect();
    if local {
        let profile = inner.deps.accounts.profile(reader, user).await?;
        known.extend(profile.displayname().map(words).unwrap_or_default());
    } else {
        for nid in rooms.iter().rev().take(NAMES) {
            let name = profile_in(reader, *nid, user).await?.and_then(|profile| profile.display_name);
            known.extend(name.as_deref().map(words).unwrap_or_default());
        }
    }
    Ok(Op::Person(PersonDoc {
        user: user.to_string(),
        words: known,
        open: rooms.iter().any(|nid| open.contains(nid)),
        rooms: rooms.into_iter().take(ROOMS).map(|nid| nid.0).collect(),
        local,
    }))
}

/// A question to the index.
struct Question {
    words: Vec<String>,
    rooms: BTreeSet<RoomNid>,
    circle: Circle,
    offset: usize,
    limit: usize,
}

impl Question {
    fn ask(&self, index: &Index) -> tantivy::Result<Vec<OwnedUserId>> {
        let fields = &index.fields;
        let is = |term: Term, score: f32| -> Box<dyn Query> {
            let query = TermQuery::new(term, IndexRecordOption::Basic);
            Box::new(ConstScoreQuery::new(Box::new(query), score))
        };
        let mut clauses: Vec<(Occur, Box<dyn Query>)> = Vec::new();
        for word in &self.words {
            clauses.push((Occur::Must, is(Term::from_field_text(fields.start, beginning(word)), 0.0)));
            clauses.push((Occur::Should, is(Term::from_field_text(fields.word, word), 2.0)));
        }
        let places =
            self.rooms.iter().take(ROOMS).map(|nid| Term::from_field_u64(fields.place, nid.0.into()));
        let near = ConstScoreQuery::new(Box::new(TermSetQuery::new(places)), 1.0);
        let mut circle: Vec<(Occur, Box<dyn Query>)> = vec![
            (Occur::Should, Box::new(near)),
            (Occur::Should, is(Term::from_field_u64(fields.standing, OPEN), 0.0)),
        ];
        if self.circle == Circle::Everybody {
            circle.push((Occur::Should, is(Term::from_field_u64(fields.standing, LOCAL), 0.0)));
        }
        clauses.push((Occur::Must, Box::new(BooleanQuery::new(circle))));
        let searcher = index.searcher();
        let best = TopDocs::with_limit(self.limit).and_offset(self.offset).order_by_score();
        let mut users = Vec::new();
        for (_, address) in searcher.search(&BooleanQuery::new(clauses), &best)? {
            let doc: TantivyDocument = searcher.doc(address)?;
            let user = doc.get_first(fields.user).and_then(|value| value.as_str().map(str::to_owned));
            users.extend(user.and_then(|user| OwnedUserId::try_from(user).ok()));
        }
        Ok(users)
    }
}

/// The decision about those whom the index proposes.
struct Seen<'a> {
    inner: &'a Inner,
    reader: &'a Reader<'a>,
    asking: &'a UserId,
    words: &'a [String],
    rooms: &'a BTreeSet<RoomNid>,
    circle: Circle,
}

impl Seen<'_> {
    /// The person as the one who asks may see them, if the name that is shown then is one that was asked for: what
    /// somebody is called in a closed room is not told, not even by being found.
    async fn person(&self, user: &UserId) -> Result<Option<Person>, Error> {
        let accounts = &self.inner.deps.accounts;
        let local = is_local(accounts, user);
        // Whoever has ended stays in the index: nothing tells it when they are back.
        let gone = local && open_account(self.reader, user).await?.is_none_or(|user| accounts.is_over(&user));
        if gone || !self.inner.deps.rooms.takes_part(user.server_name()) {
            return Ok(None);
        }
        let everybody = local && self.circle == Circle::Everybody && user != self.asking;
        let place = if everybody { None } else { self.meeting_place(user).await? };
        if place.is_none() && !everybody {
            return Ok(None);
        }
        let (display_name, avatar_url) = match place.filter(|_| !local) {
            Some(nid) => {
                let profile = profile_in(self.reader, nid, user).await?.unwrap_or_default();
                (profile.display_name, profile.avatar_url)
            }
            None => {
                let profile = self.inner.deps.accounts.profile(self.reader, user).await?;
                (profile.displayname().map(str::to_owned), profile.avatar_url().map(str::to_owned))
            }
        };
        let known = words(&format!("{user} {}", display_name.as_deref().unwrap_or_default()));
        let is_meant = |asked: &String| known.iter().any(|word| word.starts_with(asked.as_str()));
        let meant = self.words.iter().all(is_meant);
        Ok(meant.then(|| Person { user: user.to_owned(), display_name, avatar_url }))
    }

    /// A room that both are joined to, or one that anybody may enter or look into. Oneself one meets in the latter alone.
    async fn meeting_place(&self, user: &UserId) -> Result<Option<RoomNid>, Error> {
        let theirs = rooms_of(self.inner, self.reader, user).await?;
        if let Some(shared) = theirs.intersection(self.rooms).next().filter(|_| user != self.asking) {
            return Ok(Some(*shared));
        }
        let theirs: Vec<RoomNid> = theirs.into_iter().take(ROOMS).collect();
        let open = self.reader.get_many::<OpenRooms>(&theirs).await?;
        Ok(theirs.into_iter().zip(open).find_map(|(nid, open)| open.map(|()| nid)))
    }
}

/// Joined members of a room, a page at a time: those after `after`.
pub(crate) async fn members(
    reader: &Reader<'_>,
    nid: RoomNid,
    after: Option<&UserId>,
    limit: usize,
) -> Result<BTreeMap<OwnedUserId, EventNum>, Error> {
    let prefix = (nid, Membership::Join);
    let rows = match after {
        None => reader.scan::<RoomMembers>(&prefix, chappe_store::Direction::Forward, limit).await?,
        Some(after) => {
            let from = (nid, Membership::Join, format!("{after}\0"));
            reader.scan_from::<RoomMembers>(&prefix, &from, limit).await?
        }
    };
    Ok(rows.into_iter().map(|((_, _, user), num)| (user, num)).collect())
}
