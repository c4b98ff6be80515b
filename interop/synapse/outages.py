"""Outages of each server and of the line between them, and what both know afterwards."""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

from ..accounts import log_in
from .agreement import agree
from .devices import device_of, learns, notes, query, upload_keys
from .pair import Pair, person
from .person import Person
from .servers import Server
from .tale import Tale, together
from .watcher import Json

LIMIT = 120.0
MISSED = 3
# Of devices, while the line is cut: beyond what Synapse puts into one transaction.
CHANGES = 60


class Scene(Protocol):
    """What happens in one room before, during and after an outage."""

    async def before(self) -> None: ...
    async def meanwhile(self) -> None: ...
    async def after(self) -> None: ...


async def interrupt(
    name: str,
    scenes: Sequence[tuple[Tale, Scene]],
    begin: Callable[[], Awaitable[None]],
    end: Callable[[], Awaitable[None]],
) -> None:
    """Tells all scenes of one outage."""
    await together([partial(tale.tell, name, scene.before, LIMIT) for tale, scene in scenes])
    await begin()
    await together([partial(tale.tell, name, scene.meanwhile, LIMIT) for tale, scene in scenes])
    await end()
    await together([partial(tale.tell, name, scene.after, LIMIT) for tale, scene in scenes])


async def outage(down: Server, pairs: list[Pair]) -> None:
    """One server ends and comes back."""
    scenes = [(pair, CatchUp(pair, down)) for pair in pairs]
    await interrupt(f"{down.label} was down and catches up", scenes, down.stop, down.start)


async def partition(servers: Sequence[Server], scenes: Sequence[tuple[Tale, Scene]]) -> None:
    """All servers run, and none reaches another."""

    async def cut() -> None:
        for server in servers:
            server.wire.cut()

    async def mend() -> None:
        for server in servers:
            await server.wire.mend()

    labels = ", ".join(server.label for server in servers)
    await interrupt(f"changes on both sides of a partition: {labels}", scenes, cut, mend)


class CatchUp:
    """Who is on the server that stays up goes on, and the other catches up."""

    def __init__(self, pair: Pair, down: Server) -> None:
        self.pair = pair
        self.up, self.down = next(sides for sides in pair.both() if sides[1].server is down)
        self.room = ""
        self.word = secrets.token_hex(6)
        self.missed: list[str] = []
        self.device = ""

    async def before(self) -> None:
        """A room that both may change, and that shows them each other's devices."""
        self.room = await shared_with_moderator(self.pair)
        await upload_keys(self.up.account)
        await self.down.until(lambda: self.up.user_id in self.down.devices_changed)

    async def meanwhile(self) -> None:
        """Messages, state, a message for devices and a new device."""
        self.missed = [await self.up.say(self.room, f"missed {n}") for n in range(MISSED)]
        self.missed.append(await self.up.set_state(self.room, "m.room.topic", {"topic": self.word}))
        await self.up.to_devices("org.example.note", {self.down.user_id: {"*": {"word": self.word}}})
        account = await log_in(self.up.account.base, self.up.user_id, self.up.account.password)
        await upload_keys(account)
        self.device = account.device_id

    async def after(self) -> None:
        """All of it arrived, in order and once."""
        back = await self.down.say(self.room, "I was away")
        await self.up.message(self.room, back, "I was away")
        for event_id in self.missed:
            await self.down.sees(self.room, event_id)
        order = [
            event["event_id"] for event in self.down.timeline[self.room] if event["event_id"] in self.missed
        ]
        assert order == self.missed, f"came as {order}, sent as {self.missed}"
        await agree(self.room, self.up, self.down)

        await self.down.until(lambda: self.word in self.words())
        while not await self.knows_device():
            await self.down.sync()
        assert self.words().count(self.word) == 1, "the message for devices came twice"

    def words(self) -> list[str]:
        """What came for the device."""
        return [event["content"].get("word") for event in self.down.to_device]

    async def knows_device(self) -> bool:
        """Whether the new device is seen."""
        keys = await query(self.down, self.up)
        return self.device in keys["device_keys"].get(self.up.user_id, {})


class Divided:
    """Both sides change a room while they do not reach each other."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.room = ""

    async def before(self) -> None:
        """A room where the guest is a moderator."""
        self.room = await shared_with_moderator(self.pair)

    async def meanwhile(self) -> None:
        """Both set the topic and say something unheard; the host takes the power that the guest uses."""
        host, guest, room = self.pair.host, self.pair.guest, self.room
        for one, other in self.pair.both():
            await one.set_state(room, "m.room.topic", {"topic": f"set by {one.user_id}"})
            said = await one.say(room, "does anybody hear me?")
            await other.sync()
            assert said not in [event["event_id"] for event in other.timeline[room]], (
                "heard across the partition"
            )
        await guest.set_state(room, "m.room.name", {"name": "set while the guest had the power"})
        await host.give_power(room, {guest.user_id: 0})

    async def after(self) -> None:
        """Each hears the other again, and both know the same."""
        for one, other in self.pair.both():
            await other.message(self.room, await one.say(self.room, "again"), "again")
        await agree(self.room, self.pair.host, self.pair.guest)


class Drift(Tale):
    """Users of both sides change their devices while they do not reach each other."""

    def __init__(self, pair: Pair) -> None:
        super().__init__(f"devices at {pair.home.label} and {pair.away.label}", pair.version)
        self.pair = pair
        self.word = secrets.token_hex(6)
        self.people: list[Person] = []

    async def before(self) -> None:
        """A room in which both have asked for each other's keys."""
        self.people = [await person(server, "drifter") for server in (self.pair.home, self.pair.away)]
        one, two = self.people
        room = await one.create(self.version, preset="public_chat")
        await two.join(room, one.server)
        await one.membership(room, two.user_id, "join")
        for owner, other in self.both():
            await other.sync()
            await query(other, owner)
            await upload_keys(owner.account)
            await learns(other, owner, lambda seen, owner=owner: device_of(owner.account, seen))

    def both(self) -> list[tuple[Person, Person]]:
        """Each in turn, with the other."""
        one, two = self.people
        return [(one, two), (two, one)]

    async def meanwhile(self) -> None:
        """More changes than go into one transaction, and a message for the other's devices."""
        for owner, other in self.both():
            for n in range(CHANGES):
                account = await log_in(owner.account.base, owner.user_id, owner.account.password)
                await upload_keys(account)
                if n % 3:
                    await account.call("POST", "/logout", {})
            note = {"word": self.word, "for": "*"}
            await other.to_devices("org.example.note", {owner.user_id: {"*": note}})

    async def after(self) -> None:
        """The other sees what the owner has, and the message comes once."""
        for owner, other in self.both():
            have = (await query(owner, owner))["device_keys"][owner.user_id]
            wanted = {device: keys["keys"] for device, keys in have.items()}
            while await seen_by(other, owner) != wanted:
                await other.sync()
            await other.until(lambda owner=owner, other=other: owner.user_id in other.devices_changed)
            while not notes(owner, other, self.word):
                await owner.sync()
            await owner.sync()
            assert notes(owner, other, self.word) == ["*"], "the message for devices came twice"


async def seen_by(other: Person, owner: Person) -> Json:
    """The keys of somebody's devices, as another is given them."""
    devices = (await query(other, owner))["device_keys"].get(owner.user_id, {})
    return {device: keys["keys"] for device, keys in devices.items()}


async def shared_with_moderator(pair: Pair) -> str:
    """A room where the guest may set state."""
    room = await pair.share()
    await pair.guest.sees(room, await pair.host.give_power(room, {pair.guest.user_id: 50}))
    return room
