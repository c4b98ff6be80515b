//! Who is there: what is indexed of people, and whom one finds.

use std::collections::{BTreeMap, BTreeSet};

use chappe_accounts::{Accounts, Reach};
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
/// People looked at for one answer at most, and for one to another server.
const LOOKED_AT: usize = 400;
const LOOKED_AT_FOR_PEERS: usize = 100;
/// Rooms of one person that are indexed.
const ROOMS: usize = 5_000;
/// Rooms of a user of another server whose names for them are indexed.
const NAMES: usize = 3;
/// Letters that users of other servers have to ask for.
pub(crate) const LETTERS: usize = 4;

/// Whom one may find, unless they wish otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Circle {
    /// Those one shares a room with, and those in rooms that anybody may enter or look into.
    Shared,
    /// All who have an account here besides.
    Everybody,
}

/// How far a search goes (MSC4258).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Users of this server.
    Local,
    /// Users that this server knows.
    Restricted,
    /// Users of the other servers of the network besides.
    #[default]
    Remote,
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
    /// One question to the index, then a few look-ups for each person shown. Where that does not fill the page, the other
    /// servers of the network are asked; users of servers of externals find nobody.
    ///
    /// Specification: client-server API, "User directory"; MSC4258.
    pub async fn people(
        &self,
        asking: &UserId,
        term: &str,
        limit: usize,
        scope: Scope,
    ) -> Result<People, Error> {
        if self.0.deps.rooms.is_external(asking.server_name()) {
            return Ok(People::default());
        }
        let found = self.own_people(asking, words(term), limit, scope == Scope::Local).await?;
        if scope != Scope::Remote || found.results.len() >= limit {
            return Ok(found);
        }
        Ok(self.with_others(found, asking, term, limit).await)
    }

    /// Users of this server whom `asking`, of another server of the network, finds: by their names and the local parts of
    /// their ids. Who asks for less than four letters finds nobody: that would be asking for everybody, in a few steps. Neither
    /// does who asks for the name of this server alone, which all ids have.
    pub async fn people_for_peer(&self, asking: &UserId, term: &str, limit: usize) -> Result<People, Error> {
        let rooms = &self.0.deps.rooms;
        let here = self.0.deps.accounts.server_name();
        // A whole user id says twice where its user is.
        let asked = words(term.strip_suffix(&format!(":{here}")).unwrap_or(term));
        let externals = rooms.is_external(asking.server_name()) || rooms.is_external(here);
        if externals || letters(&asked) < LETTERS || all_begin(&asked, &words(here.as_str())) {
            return Ok(People::default());
        }
        self.own_people(asking, asked, limit, true).await
    }

    /// Whom searches find here.
    fn circle(&self) -> Circle {
        let usual = if self.0.deps.rooms.neighbours().is_some() { Circle::Everybody } else { Circle::Shared };
        self.0.circle.get().unwrap_or(usual)
    }

    async fn own_people(
        &self,
        asking: &UserId,
        mut asked: Vec<String>,
        limit: usize,
        local: bool,
    ) -> Result<People, Error> {
        asked.truncate(WORDS);
        let Some(index) = self.fresh_people().await.filter(|_| !asked.is_empty() && limit > 0) else {
            return Ok(People::default());
        };
        let reader = self.0.deps.store.read();
        let rooms = rooms_of(&self.0, &reader, asking).await?;
        let (circle, networked) = (self.circle(), self.0.deps.rooms.neighbours().is_some());
        let seen =
            Seen { inner: &self.0, reader: &reader, asking, words: &asked, rooms: &rooms, circle, networked };
        let (turns, looked_at) = if is_local(&self.0.deps.accounts, asking) {
            (&self.0.turns, LOOKED_AT)
        } else {
            (&self.0.peer_turns, LOOKED_AT_FOR_PEERS)
        };
        let mut found = People::default();
        let (mut offset, page) = (0, limit + 10);
        loop {
            let (words, rooms) = (asked.clone(), rooms.clone());
            let question = Question { words, rooms, circle, networked, local, offset, limit: page };
            let names = self.ask_in(turns, index.clone(), move |index| question.ask(index)).await?;
            let last = names.len() < page;
            for user in &names {
                let Some(person) = seen.person(user).await? else { continue };
                if found.results.len() == limit {
                    found.limited = true;
                    return Ok(found);
                }
                found.results.push(person);
            }
            offset += page;
            if last || offset >= looked_at {
                found.limited = !last;
                return Ok(found);
            }
        }
    }
}

/// Whether each of some words begins one of others.
fn all_begin(words: &[String], others: &[String]) -> bool {
    words.iter().all(|word| others.iter().any(|other| other.starts_with(word.as_str())))
}

/// Letters of all words, those left out that are the beginning of another one.
pub(crate) fn letters(words: &[String]) -> usize {
    let words: BTreeSet<&str> = words.iter().map(String::as_str).collect();
    let is_beginning = |word: &str| words.iter().any(|other| *other != word && other.starts_with(word));
    words.iter().filter(|word| !is_beginning(word)).map(|word| word.chars().count()).sum()
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

/// A local account that is somebody's, and not closed.
async fn open_account(reader: &Reader<'_>, user: &UserId) -> Result<Option<User>, Error> {
    let account = reader.get::<Users>(&user.to_owned()).await?.map(|Json(user)| user);
    let is_somebody = |user: &User| !matches!(user.kind, UserKind::Guest | UserKind::System);
    Ok(account.filter(|user| user.deactivated.is_none() && is_somebody(user)))
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
    /// There is a directory of the network: see [`Seen::networked`].
    networked: bool,
    /// Users of this server alone.
    local: bool,
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
        let standing = |value| is(Term::from_field_u64(fields.standing, value), 0.0);
        let mut open = vec![(Occur::Must, standing(OPEN))];
        if self.networked {
            open.push((Occur::Must, standing(LOCAL)));
        }
        let mut circle: Vec<(Occur, Box<dyn Query>)> =
            vec![(Occur::Should, Box::new(near)), (Occur::Should, Box::new(BooleanQuery::new(open)))];
        if self.circle == Circle::Everybody {
            circle.push((Occur::Should, standing(LOCAL)));
        }
        clauses.push((Occur::Must, Box::new(BooleanQuery::new(circle))));
        if self.local {
            clauses.push((Occur::Must, standing(LOCAL)));
        }
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
    /// There is a directory of the network: users of other servers who are not met are told of by their own servers, which
    /// know their wishes.
    networked: bool,
}

impl Seen<'_> {
    /// The person as the one who asks may see them, if the name that is shown then is one that was asked for: what
    /// somebody is called in a closed room is not told, not even by being found.
    async fn person(&self, user: &UserId) -> Result<Option<Person>, Error> {
        let accounts = &self.inner.deps.accounts;
        let local = is_local(accounts, user);
        // Whoever has ended, or is locked, stays in the index: nothing tells it when they are back.
        let away = |account: User| account.locked || accounts.is_over(&account);
        let gone = local && open_account(self.reader, user).await?.is_none_or(away);
        if gone || !self.inner.deps.rooms.takes_part(user.server_name()) {
            return Ok(None);
        }
        let reach = if local { accounts.reach(self.reader, user).await? } else { Reach::default() };
        let from_here = is_local(accounts, self.asking);
        if reach.hidden || reach.here && !from_here {
            return Ok(None);
        }
        let met = reach.met || !local && self.networked;
        let everybody = local && !met && self.circle == Circle::Everybody && user != self.asking;
        let place = if everybody { None } else { self.meeting_place(user, met).await? };
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
        // The name of this server tells its own users from others; to others it would name all of them.
        let id = if from_here { user.as_str() } else { user.localpart() };
        let known = words(&format!("{id} {}", display_name.as_deref().unwrap_or_default()));
        let is_meant = |asked: &String| known.iter().any(|word| word.starts_with(asked.as_str()));
        let meant = self.words.iter().all(is_meant);
        Ok(meant.then(|| Person { user: user.to_owned(), display_name, avatar_url }))
    }

    /// A room that both are joined to, or, unless they have to have `met`, one that anybody may enter or look into. Oneself
    /// one meets in the latter alone.
    async fn meeting_place(&self, user: &UserId, met: bool) -> Result<Option<RoomNid>, Error> {
        let theirs = rooms_of(self.inner, self.reader, user).await?;
        if let Some(shared) = theirs.intersection(self.rooms).next().filter(|_| user != self.asking) {
            return Ok(Some(*shared));
        }
        if met {
            return Ok(None);
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

#[cfg(test)]
mod tests {
    use super::{Circle, Question, all_begin, letters};
    use crate::{
        analyze::words,
        build::Stage,
        index::{FORMAT, Index, Op, Progress},
        schema::PersonDoc,
    };

    /// Users of other servers who are in forums alone are not proposed where their own servers tell of them.
    #[test]
    fn forums_bring_no_strangers_where_their_servers_are_asked() {
        let folder = tempfile::tempdir().unwrap();
        let (index, _) = Index::open(&folder.path().join("search"), 15_000_000).unwrap();
        let person = |user: &str, local: bool, room: u32| {
            let (words, rooms) = (words(user).into_iter().collect(), vec![room]);
            Op::Person(PersonDoc { user: user.to_owned(), words, rooms, open: true, local })
        };
        let people = [("@martin:a.fr", true, 1), ("@martin:b.fr", false, 1), ("@martin:c.fr", false, 2)];
        index.apply(people.map(|(user, local, room)| person(user, local, room)).into()).unwrap();
        let done = Progress {
            format: FORMAT,
            mark: "m".to_owned(),
            messages: true,
            position: 1,
            stage: Stage::Done,
        };
        index.commit(&done).unwrap();
        let found = |networked: bool| {
            let question = Question {
                words: words("martin"),
                rooms: [chappe_store::RoomNid(2)].into(),
                circle: Circle::Shared,
                networked,
                local: false,
                offset: 0,
                limit: 10,
            };
            let mut found = question.ask(&index).unwrap();
            found.sort();
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(found(true), ["@martin:a.fr", "@martin:c.fr"]);
        assert_eq!(found(false).len(), 3);
    }

    #[test]
    fn the_name_of_a_server_says_of_nobody_who_they_are() {
        let here = words("agent.culture.gouv.fr");
        for (term, is_name) in [
            ("culture", true),
            ("cult gouv", true),
            ("Agent.Culture", true),
            ("culture martin", false),
            ("ture", false),
        ] {
            assert_eq!(all_begin(&words(term), &here), is_name, "{term}");
        }
    }

    #[test]
    fn letters_are_of_words_that_say_something() {
        for (term, count) in
            [("", 0), ("dup", 3), ("Dupé", 4), ("le roy", 5), ("a al alb", 3), ("an an an", 2), ("d.u/p", 3)]
        {
            assert_eq!(letters(&words(term)), count, "{term}");
        }
    }
}
