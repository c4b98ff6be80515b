"""Two people on two servers, with rooms of one version on the first."""

from typing import Any

from ..accounts import sign_up
from .person import Person
from .servers import Server
from .tale import Tale
from .watcher import segment


class Pair(Tale):
    """A host on `home`, where the rooms are made, and a guest of `away`."""

    def __init__(self, home: Server, away: Server, version: str) -> None:
        super().__init__(f"{away.label} in a {home.label} room", version)
        self.home, self.away = home, away
        self.kind = f"{away.software} in a {home.software} room"
        self.host: Person
        self.guest: Person

    async def sign_up(self) -> None:
        """One user on each server."""
        self.host = await person(self.home, "host")
        self.guest = await person(self.away, "guest")

    def both(self) -> list[tuple[Person, Person]]:
        """Each in turn, with the other."""
        return [(self.host, self.guest), (self.guest, self.host)]

    async def create(self, **options: Any) -> str:
        """A room of the host's."""
        return await self.host.create(self.version, **options)

    async def enter(self, room_or_alias: str) -> str:
        """The guest joins, the host has seen it, the guest's server knows all members; gives the room's id.

        The last since a Synapse that is put out before waits for them for ever, and with it its user's sync.
        """
        room = await self.guest.join(room_or_alias, self.home)
        await self.host.until(lambda: self.host.member(room, self.guest.user_id) == "join")
        await self.guest.account.call("GET", f"/rooms/{segment(room)}/members")
        return room

    async def share(self, **options: Any) -> str:
        """A room that both are in."""
        return await self.enter(await self.create(preset="public_chat", **options))


async def person(server: Server, name: str) -> Person:
    """Signs somebody up."""
    return Person(await sign_up(server.base, name, server.registration), server)
