"""Chapters: rooms that give way to newer ones, and what version 12 makes of creators."""

import secrets

from .agreement import agree
from .pair import Pair
from .person import Person, refused
from .watcher import segment

NEWEST = "12"


async def to_next(pair: Pair) -> None:
    """A tombstone here, a predecessor there; alias, power and bans move, and the guest follows."""
    await upgrade(pair, str(int(pair.version) + 1))


async def to_newest(pair: Pair) -> None:
    """The same, across all differences between versions."""
    await upgrade(pair, NEWEST)


async def by_guest(pair: Pair) -> None:
    """The guest, once an administrator, upgrades: the new room is on the other server."""
    room = await pair.share()
    # What a tombstone needs is more since version 12.
    enough = 150 if pair.version == NEWEST else 100
    await pair.guest.sees(room, await pair.host.give_power(room, {pair.guest.user_id: enough}))
    new = await replaced(pair.guest, room, NEWEST)
    tombstone = await pair.host.event(room, lambda event: event["type"] == "m.room.tombstone")
    assert tombstone["content"]["replacement_room"] == new, str(tombstone)
    await pair.host.join(new, pair.away)
    await pair.guest.message(new, await pair.host.say(new, "I followed"), "I followed")


async def upgrade(pair: Pair, version: str) -> None:
    """The host upgrades, and everything moves."""
    local = f"story-{secrets.token_hex(4)}"
    alias = f"#{local}:{pair.home.name}"
    room = await pair.share(room_alias_name=local, name="Story")
    banned = f"@banned:{pair.away.name}"
    body = {"user_id": banned}
    await pair.host.account.call("POST", f"/rooms/{segment(room)}/ban", body)
    await pair.guest.sees(room, await pair.host.give_power(room, {pair.guest.user_id: 50}))

    new = await replaced(pair.host, room, version)
    tombstone = await pair.guest.event(room, lambda event: event["type"] == "m.room.tombstone")
    assert tombstone["content"]["replacement_room"] == new, str(tombstone)
    await pair.enter(new)
    await agree(new, pair.host, pair.guest)
    create = await pair.guest.state(new, "m.room.create") or {}
    assert create["room_version"] == version, str(create)
    assert create["predecessor"]["room_id"] == room, str(create)
    assert await pair.guest.state(new, "m.room.name") == {"name": "Story"}
    for one, _ in pair.both():
        membership = await one.state(new, "m.room.member", banned) or {}
        assert membership.get("membership") == "ban", f"for {one.user_id} the ban became {membership}"
    levels = await pair.guest.state(new, "m.room.power_levels") or {}
    assert levels["users"].get(pair.guest.user_id) == 50, str(levels)
    found = await pair.guest.account.call("GET", f"/directory/room/{segment(alias)}")
    assert found["room_id"] == new, f"the alias leads to {found}"
    canonical = await pair.guest.state(new, "m.room.canonical_alias") or {}
    assert canonical.get("alias") == alias, f"the canonical alias is {canonical}"
    await pair.host.message(new, await pair.guest.say(new, "I followed"), "I followed")


async def replaced(person: Person, room: str, version: str) -> str:
    """Upgrades a room; gives the id of the new one."""
    path = f"/rooms/{segment(room)}/upgrade"
    return (await person.account.call("POST", path, {"new_version": version}))["replacement_room"]


async def creators(pair: Pair) -> None:
    """A creator of the other server may all, stands in no power levels, and cannot be put out."""
    content = {"additional_creators": [pair.guest.user_id]}
    room = await pair.share(creation_content=content)
    assert ":" not in room, f"the room's id is {room}"
    for one, other in pair.both():
        topic = {"topic": f"set by {one.user_id}"}
        await other.sees(room, await one.set_state(room, "m.room.topic", topic))
        await refused(one.put("kick", room, other))
        # Servers differ.
        await refused(one.give_power(room, {other.user_id: 0}), 400, 403)
    levels = {"@somebody:example.org": 100}
    await pair.host.sees(room, await pair.guest.give_power(room, levels))


async def trusted(pair: Pair) -> None:
    """Who is invited to a trusted private chat is a creator too."""
    room = await pair.create(preset="trusted_private_chat", invite=[pair.guest.user_id])
    await pair.guest.finds(room, "invite")
    await pair.enter(room)
    create = await pair.guest.state(room, "m.room.create") or {}
    assert create.get("additional_creators") == [pair.guest.user_id], str(create)
    await pair.host.sees(room, await pair.guest.set_state(room, "m.room.topic", {"topic": "mine too"}))
