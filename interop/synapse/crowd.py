"""Chapters: a room of hundreds, joined before its members are known."""

import asyncio
import json

from ..accounts import sign_up
from .agreement import agree
from .pair import person
from .person import Person
from .servers import Server
from .tale import Tale, together
from .watcher import segment

MEMBERS = 300
LIMIT = 120.0
# Whoever does not load members lazily is shown the room only once they are all there.
LAZY = json.dumps({"room": {"state": {"lazy_load_members": True}, "timeline": {"limit": 100}}})


class Crowd(Tale):
    """A room of one server's people, which another joins, and through that one a third."""

    subject = "a room of many"

    def __init__(self, home: Server, through: Server, last: Server, version: str) -> None:
        super().__init__(f"{through.label}, then {last.label}, in a {home.label} room", version)
        self.home, self.through, self.last = home, through, last
        self.room = ""
        self.members: set[str] = set()

    async def chapters(self) -> None:
        """Everything."""
        host = await person(self.home, "host")
        await self.tell(self.subject, lambda: self.fill(host), LIMIT)
        guest = await person(self.through, "guest")
        name = f"{self.through.label} joins a room of many through {self.home.label}"
        await self.tell(name, lambda: self.join(guest, self.home, host), LIMIT)
        last = await person(self.last, "guest")
        name = f"{self.last.label} joins a room of many through {self.through.label}"
        await self.tell(name, lambda: self.join(last, self.through, host), LIMIT)
        name = "all three know the same of a room of many"
        await self.tell(name, lambda: agree(self.room, host, guest, last), LIMIT)

    async def fill(self, host: Person) -> None:
        """Hundreds of the host's server come in."""
        self.room = await host.create(self.version, preset="public_chat")
        self.members.add(host.user_id)

        async def enter() -> None:
            account = await sign_up(self.home.base, "member", self.home.registration)
            await account.call("POST", f"/join/{segment(self.room)}", {})
            self.members.add(account.user_id)

        await together([enter] * MEMBERS)

    async def join(self, guest: Person, via: Server, host: Person) -> None:
        """Both hear each other at once, and then all members are there."""
        guest.filter = LAZY
        await guest.join(self.room, via)
        first = await guest.say(self.room, "already here")
        # What the host's server says before it knows of the join is not sent to the guest's.
        await host.membership(self.room, guest.user_id, "join")
        said = [first, await host.say(self.room, "welcome")]
        for one in (guest, host):
            for event_id in said:
                await one.sees(self.room, event_id)
        self.members.add(guest.user_id)
        joined = (await guest.account.call("GET", f"/rooms/{segment(self.room)}/joined_members"))["joined"]
        assert set(joined) == self.members, f"missing: {self.members - set(joined)}"
        # Not often: it is a long log.
        while not await asyncio.to_thread(guest.server.completed, self.room):
            await asyncio.sleep(1)
