//! Who is in which room: indexes of the current membership, all kept by one function.

use chappe_kv::Position;
use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};

use crate::{
    At, Reader, Tx, Value,
    events::EventNum,
    key::{Key, KeyReader, KeyWriter},
    pack::{Packer, Unpacker},
    rooms::{RoomHead, RoomNid},
    table,
    tx::Error,
};

/// A user's part in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Membership {
    /// In the room.
    Join,
    /// Invited.
    Invite,
    /// Asked to be invited.
    Knock,
    /// Left, was kicked, turned an invite down, or was unbanned.
    Leave,
    /// Banned.
    Ban,
}

impl Membership {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Join, Self::Invite, Self::Knock, Self::Leave, Self::Ban];

    /// As in `m.room.member`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Invite => "invite",
            Self::Knock => "knock",
            Self::Leave => "leave",
            Self::Ban => "ban",
        }
    }

    /// From `m.room.member`; an unknown word is nothing.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|membership| membership.as_str() == text)
    }

    fn code(self) -> u8 {
        match self {
            Self::Join => 1,
            Self::Invite => 2,
            Self::Knock => 3,
            Self::Leave => 4,
            Self::Ban => 5,
        }
    }

    fn from_code(code: u64) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|membership| u64::from(membership.code()) == code);
        found.ok_or(Error::Corrupt("membership"))
    }
}

impl Key for Membership {
    fn write(&self, to: &mut KeyWriter) {
        to.raw(&[self.code()]);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Error> {
        let [code] = from.raw()?;
        Self::from_code(code.into())
    }
}

/// A local user's membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserRoom {
    /// What it is now.
    pub membership: Membership,
    /// The event that says so.
    pub num: EventNum,
}

impl Value for UserRoom {
    fn to_bytes(&self) -> Vec<u8> {
        Packer::default().uint(self.membership.code().into()).uint(self.num.0.into()).done()
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = Unpacker::new(bytes, "membership");
        Ok(Self { membership: Membership::from_code(from.uint()?)?, num: EventNum(from.u32()?) })
    }
}

/// A change of a user's current membership event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberChange {
    /// Whose.
    pub user: OwnedUserId,
    /// Whether the user is of this server.
    pub local: bool,
    /// Before, if there was a membership event.
    pub old: Option<Membership>,
    /// After, with the event; none if the state has no membership event of the user any more.
    pub new: Option<(Membership, EventNum)>,
}

table! {
    /// Room, membership, user → the membership event.
    RoomMembers = ROOM_MEMBERS: (RoomNid, Membership, OwnedUserId) => EventNum;
    /// Local user and room → current membership, and the commit that changed it.
    UserRooms = USER_ROOMS: (OwnedUserId, RoomNid) => At<UserRoom>;
    /// Room and server → its joined users; a row may say 0.
    RoomServers = ROOM_SERVERS: (RoomNid, OwnedServerName) => i64;
    /// User of another server and room → they are joined.
    RemoteRooms = REMOTE_ROOMS: (OwnedUserId, RoomNid) => ();
    /// Room → anybody may enter or look into it, and the directory of people knows that.
    OpenRooms = OPEN_ROOMS: RoomNid => ();
    /// Room that lets guests in no longer → since when (milliseconds since 1970) those of this server are to leave.
    ShutRooms = SHUT_ROOMS: RoomNid => u64;
    /// Local user and room → forgotten by the commit.
    Forgotten = FORGOTTEN: (OwnedUserId, RoomNid) => At<()>;
}

impl Tx {
    /// Brings every membership index up to date with one change of the current state, and the head's counts. The one
    /// function that writes them; the caller replaces the head.
    pub fn change_member(&mut self, nid: RoomNid, head: &mut RoomHead, change: &MemberChange) -> &mut Self {
        let MemberChange { user, local, old, new } = change;
        let membership = new.map(|(membership, _)| membership);
        if let Some(old) = old.filter(|old| Some(*old) != membership) {
            self.delete::<RoomMembers>(&(nid, old, user.clone()));
        }
        if let Some((membership, num)) = new {
            self.put::<RoomMembers>(&(nid, *membership, user.clone()), num);
        }
        let joined =
            i64::from(membership == Some(Membership::Join)) - i64::from(*old == Some(Membership::Join));
        let invited =
            i64::from(membership == Some(Membership::Invite)) - i64::from(*old == Some(Membership::Invite));
        head.joined = moved(head.joined, joined);
        head.invited = moved(head.invited, invited);
        if joined != 0 {
            self.add::<RoomServers>(&(nid, user.server_name().to_owned()), joined);
        }
        if *local {
            self.change_user_room(nid, user, *new);
        } else if joined > 0 {
            self.put::<RemoteRooms>(&(user.clone(), nid), &());
        } else if joined < 0 {
            self.delete::<RemoteRooms>(&(user.clone(), nid));
        }
        self
    }

    /// Writes down that a user of another server is joined, where that was not done when they joined. Conflict if they
    /// are no longer.
    pub fn note_remote_room(&mut self, nid: RoomNid, user: &UserId, num: EventNum) -> &mut Self {
        self.expect::<RoomMembers>(&(nid, Membership::Join, user.to_owned()), Some(&num));
        self.put::<RemoteRooms>(&(user.to_owned(), nid), &())
    }

    fn change_user_room(&mut self, nid: RoomNid, user: &UserId, new: Option<(Membership, EventNum)>) {
        let key = (user.to_owned(), nid);
        let Some((membership, num)) = new else {
            self.delete::<UserRooms>(&key);
            return;
        };
        self.put_now::<UserRooms, _>(&key, &UserRoom { membership, num });
        if matches!(membership, Membership::Join | Membership::Invite | Membership::Knock) {
            self.delete::<Forgotten>(&key);
        }
    }

    /// Remembers that a local user forgot a room. Conflict if the membership is no longer `expected`.
    pub fn forget_room(&mut self, nid: RoomNid, user: &UserId, expected: &At<UserRoom>) -> &mut Self {
        let key = (user.to_owned(), nid);
        self.expect::<UserRooms>(&key, Some(expected));
        self.put_now::<Forgotten, _>(&key, &())
    }
}

fn moved(count: u32, by: i64) -> u32 {
    u32::try_from(i64::from(count) + by).unwrap_or(0)
}

impl Reader<'_> {
    /// A local user's membership in a room with its commit; forgotten rooms too.
    pub async fn user_room(&self, user: &UserId, nid: RoomNid) -> Result<Option<At<UserRoom>>, Error> {
        self.get::<UserRooms>(&(user.to_owned(), nid)).await
    }

    /// Every room a local user has a membership in, forgotten ones left out, by room number.
    pub async fn user_rooms(&self, user: &UserId) -> Result<Vec<(RoomNid, At<UserRoom>)>, Error> {
        let mut rows = self.user_rooms_and_forgotten(user).await?;
        let forgotten = self.scan_all::<Forgotten>(&user.to_owned()).await?;
        let forgotten: std::collections::BTreeSet<RoomNid> =
            forgotten.into_iter().map(|((_, nid), _)| nid).collect();
        rows.retain(|(nid, _)| !forgotten.contains(nid));
        Ok(rows)
    }

    /// Every room a local user has a membership in, by room number.
    pub async fn user_rooms_and_forgotten(
        &self,
        user: &UserId,
    ) -> Result<Vec<(RoomNid, At<UserRoom>)>, Error> {
        let rows = self.scan_all::<UserRooms>(&user.to_owned()).await?;
        Ok(rows.into_iter().map(|((_, nid), at)| (nid, at)).collect())
    }

    /// Whether (and at which commit) a local user has forgotten a room.
    pub async fn forgotten(&self, user: &UserId, nid: RoomNid) -> Result<Option<Position>, Error> {
        Ok(self.get::<Forgotten>(&(user.to_owned(), nid)).await?.map(|at| at.position))
    }

    /// The users with a membership, and their membership events, by user id.
    pub async fn members(
        &self,
        nid: RoomNid,
        membership: Membership,
    ) -> Result<Vec<(OwnedUserId, EventNum)>, Error> {
        let rows = self.scan_all::<RoomMembers>(&(nid, membership)).await?;
        Ok(rows.into_iter().map(|((_, _, user), num)| (user, num)).collect())
    }

    /// The first user with a membership of whom something holds: no more members are read than it takes.
    pub async fn find_member(
        &self,
        nid: RoomNid,
        membership: Membership,
        holds: impl Fn(&UserId) -> bool,
    ) -> Result<Option<OwnedUserId>, Error> {
        const PAGE: usize = 200;
        let mut page = self.some_members(nid, membership, PAGE).await?;
        loop {
            let last = page.last().map(|(user, _)| user.clone());
            if let Some((user, _)) = page.into_iter().find(|(user, _)| holds(user)) {
                return Ok(Some(user));
            }
            let Some(last) = last else { return Ok(None) };
            page = self.members_after(nid, membership, &last, PAGE).await?;
        }
    }

    /// The first `limit` users with a membership.
    pub async fn some_members(
        &self,
        nid: RoomNid,
        membership: Membership,
        limit: usize,
    ) -> Result<Vec<(OwnedUserId, EventNum)>, Error> {
        let rows = self.scan::<RoomMembers>(&(nid, membership), crate::Direction::Forward, limit).await?;
        Ok(rows.into_iter().map(|((_, _, user), num)| (user, num)).collect())
    }

    /// Up to `limit` users with a membership who come after a user of the same membership.
    pub async fn members_after(
        &self,
        nid: RoomNid,
        membership: Membership,
        user: &UserId,
        limit: usize,
    ) -> Result<Vec<(OwnedUserId, EventNum)>, Error> {
        let from = (nid, membership, user.to_owned());
        let rows = self.scan_from::<RoomMembers>(&(nid, membership), &from, limit + 1).await?;
        Ok(rows.into_iter().skip(1).map(|((_, _, user), num)| (user, num)).collect())
    }

    /// The rooms that a user of another server is joined to, `limit` at most.
    pub async fn remote_rooms(&self, user: &UserId, limit: usize) -> Result<Vec<RoomNid>, Error> {
        let rows = self.scan::<RemoteRooms>(&user.to_owned(), crate::Direction::Forward, limit).await?;
        Ok(rows.into_iter().map(|((_, nid), ())| nid).collect())
    }

    /// Any user's current membership in a room: one round trip.
    pub async fn membership(
        &self,
        nid: RoomNid,
        user: &UserId,
    ) -> Result<Option<(Membership, EventNum)>, Error> {
        let keys = Membership::ALL.map(|membership| (nid, membership, user.to_owned()));
        let rows = self.get_many::<RoomMembers>(&keys).await?;
        Ok(Membership::ALL.into_iter().zip(rows).find_map(|(membership, num)| Some((membership, num?))))
    }

    /// Servers with joined users and how many: O(servers).
    pub async fn room_servers(&self, nid: RoomNid) -> Result<Vec<(OwnedServerName, u32)>, Error> {
        let rows = self.scan_all::<RoomServers>(&nid).await?;
        let joined =
            |((_, server), count)| Some((server, u32::try_from(count).ok().filter(|count| *count > 0)?));
        Ok(rows.into_iter().filter_map(joined).collect())
    }

    /// Whether a server has a joined user in a room.
    pub async fn server_joined(&self, nid: RoomNid, server: &ServerName) -> Result<bool, Error> {
        Ok(self.get::<RoomServers>(&(nid, server.to_owned())).await?.is_some_and(|count| count > 0))
    }
}

#[cfg(test)]
mod tests {
    use chappe_kv::{Db, Memory};
    use ruma::{RoomVersionId, UserId, owned_server_name, user_id};

    use super::{MemberChange, Membership};
    use crate::{EventNum, RoomHead, RoomNid, Store, Tx};

    const NID: RoomNid = RoomNid(1);

    async fn change(store: &Store, user: &UserId, new: Option<Membership>) {
        let reader = store.read();
        let old = reader.room_head(NID).await.unwrap();
        let before = reader.membership(NID, user).await.unwrap().map(|(membership, _)| membership);
        let (mut head, mut tx) = (old.clone(), Tx::new());
        let change = MemberChange {
            user: user.to_owned(),
            local: user.server_name() == "here.fr",
            old: before,
            new: new.map(|membership| (membership, EventNum(7))),
        };
        tx.change_member(NID, &mut head, &change).replace_head(NID, &old, &head);
        store.commit(tx).await.unwrap();
    }

    #[tokio::test]
    async fn one_function_keeps_all_indexes() {
        let store = Store::open(Db::new(Memory::default())).await.unwrap();
        let mut tx = Tx::new();
        tx.first_head(NID, &RoomHead::new(RoomVersionId::V11));
        store.commit(tx).await.unwrap();
        let (here, there) = (user_id!("@a:here.fr"), user_id!("@b:there.fr"));
        change(&store, here, Some(Membership::Join)).await;
        change(&store, there, Some(Membership::Invite)).await;
        change(&store, there, Some(Membership::Join)).await;
        change(&store, there, Some(Membership::Join)).await;
        let reader = store.read();
        let head = reader.room_head(NID).await.unwrap();
        assert_eq!((head.joined, head.invited), (2, 0));
        assert_eq!(reader.members(NID, Membership::Join).await.unwrap().len(), 2);
        let servers = [(owned_server_name!("here.fr"), 1), (owned_server_name!("there.fr"), 1)];
        assert_eq!(reader.room_servers(NID).await.unwrap(), servers);
        assert!(
            reader.user_room(there, NID).await.unwrap().is_none(),
            "a remote user has no memberships of their own here"
        );
        assert_eq!(reader.remote_rooms(there, 9).await.unwrap(), [NID]);
        assert_eq!(reader.remote_rooms(here, 9).await.unwrap(), []);

        change(&store, there, Some(Membership::Ban)).await;
        change(&store, here, Some(Membership::Leave)).await;
        let reader = store.read();
        assert!(!reader.server_joined(NID, "there.fr".try_into().unwrap()).await.unwrap());
        assert_eq!(reader.room_servers(NID).await.unwrap(), []);
        assert_eq!(reader.remote_rooms(there, 9).await.unwrap(), []);
        assert_eq!(reader.room_head(NID).await.unwrap().joined, 0);
        let left = reader.user_room(here, NID).await.unwrap().unwrap();
        assert_eq!(left.value.membership, Membership::Leave);

        let mut tx = Tx::new();
        tx.forget_room(NID, here, &left);
        store.commit(tx).await.unwrap();
        assert_eq!(store.read().user_rooms(here).await.unwrap(), []);
        change(&store, here, Some(Membership::Invite)).await;
        assert_eq!(store.read().user_rooms(here).await.unwrap().len(), 1);
        change(&store, here, None).await;
        assert!(store.read().membership(NID, here).await.unwrap().is_none());
    }
}
