"""Chapters of three servers: of those in a restricted room, the one asked first cannot let anybody in."""

from collections.abc import Iterator, Sequence
from urllib.parse import urlencode

from .pair import person
from .peer import ask
from .person import Person, refused
from .servers import Server
from .tale import Tale
from .watcher import segment

RESTRICTED = range(8, 13)
KNOCK_RESTRICTED = range(10, 13)
MAKE_JOIN = "/_matrix/federation/v1/make_join"


class Residents(Tale):
    """A host who may invite, a bystander who may not, and a guest who is in the space."""

    subject = "restricted join through another resident"

    def __init__(self, able: Server, unable: Server, joining: Server, version: str) -> None:
        super().__init__(f"{joining.label} by way of {unable.label} and {able.label}", version)
        self.able, self.unable, self.joining = able, unable, joining
        self.host: Person
        self.bystander: Person
        self.guest: Person

    async def chapters(self) -> None:
        """Everything, in the room version."""
        self.host = await person(self.able, "host")
        self.bystander = await person(self.unable, "bystander")
        self.guest = await person(self.joining, "guest")
        await self.tell(self.subject, lambda: self.join("restricted"))
        if int(self.version) in KNOCK_RESTRICTED:
            name = "knock or restricted join through another resident"
            await self.tell(name, lambda: self.join("knock_restricted"))

    async def join(self, rule: str) -> None:
        """The resident asked first has nobody who may invite, then does not know who is in the space."""
        space, room = await self.rooms(rule)
        await self.cannot(room, "M_UNABLE_TO_GRANT_JOIN")
        await self.let_in(room, self.guest, self.unable, self.able)
        await self.out(room)
        # The server is in the room, and still has to ask another.
        neighbour = await person(self.unable, "neighbour")
        await neighbour.join(space, self.able)
        await self.host.membership(space, neighbour.user_id, "join")
        await self.let_in(room, neighbour)

        await self.bystander.sees(room, await self.host.give_power(room, {self.bystander.user_id: 50}))
        for somebody in (self.bystander, neighbour):
            await somebody.leave(space)
            await self.host.membership(space, somebody.user_id, "leave")
        await self.cannot(room, "M_UNABLE_TO_AUTHORISE_JOIN")
        await self.let_in(room, self.guest, self.unable, self.able)

    async def rooms(self, rule: str) -> tuple[str, str]:
        """A space with all three, and a room for its members where the guest is not yet."""
        space = await self.host.create(
            self.version, preset="public_chat", creation_content={"type": "m.space"}
        )
        rules = {"join_rule": rule, "allow": [{"type": "m.room_membership", "room_id": space}]}
        room = await self.host.create(
            self.version,
            preset="private_chat",
            power_level_content_override={"invite": 50},
            initial_state=[{"type": "m.room.join_rules", "state_key": "", "content": rules}],
        )
        await self.bystander.join(space, self.able)
        await known(self.bystander, space)
        await self.let_in(room, self.bystander, self.able)
        await self.guest.join(space, self.able)
        await self.bystander.membership(space, self.guest.user_id, "join")
        return space, room

    async def cannot(self, room: str, errcode: str) -> None:
        """The server asked first says why it cannot."""
        versions = urlencode({"ver": self.version})
        path = f"{MAKE_JOIN}/{segment(room)}/{segment(self.guest.user_id)}?{versions}"
        refusal = await refused(ask(self.joining, self.unable, "GET", path), 400)
        assert refusal["errcode"] == errcode, f"asked first it said {refusal}"

    async def let_in(self, room: str, somebody: Person, *via: Server) -> None:
        """The host lets somebody in, and those who were there see it."""
        await somebody.join(room, *via)
        await known(somebody, room)
        for other in (self.host, self.bystander):
            if other is not somebody:
                await other.until(lambda other=other: other.member(room, somebody.user_id) == "join")
                content = await other.state(room, "m.room.member", somebody.user_id) or {}
                voucher = content.get("join_authorised_via_users_server")
                assert voucher == self.host.user_id, f"for {other.user_id} the join came in as {content}"

    async def out(self, room: str) -> None:
        """The guest leaves, and all know."""
        await self.guest.leave(room)
        for other in (self.host, self.bystander):
            await other.until(lambda other=other: other.member(room, self.guest.user_id) == "leave")


async def known(person: Person, room: str) -> None:
    """The person's server knows all members: before, a Synapse does not let anybody in."""
    await person.account.call("GET", f"/rooms/{segment(room)}/members")


def arrangements(servers: Sequence[Server], version: str) -> Iterator[Residents]:
    """Each of the first two comes in, by way of the other and the third: either may be the one that can."""
    one, two, third = servers
    for joining, other in [(one, two), (two, one)]:
        yield Residents(other, third, joining, version)
        yield Residents(third, other, joining, version)
