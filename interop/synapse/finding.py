"""Chapters: spaces, lists of public rooms, summaries of rooms one is not in."""

import secrets
from typing import Any

from ..steps import until_answer
from .pair import Pair
from .person import Person
from .watcher import Json, segment

SPACE = {"type": "m.space"}


async def spaces(pair: Pair) -> None:
    """A space of both servers' rooms, seen whole from the other server."""
    top = await pair.share(name="top", creation_content=SPACE)
    inner = await pair.create(name="inner", preset="public_chat", creation_content=SPACE)
    deep = await pair.create(name="deep", preset="public_chat")
    private = await pair.create(name="private", preset="private_chat")
    theirs = await pair.guest.create(pair.version, name="theirs", preset="public_chat")
    links = [
        (top, inner, pair.home),
        (top, private, pair.home),
        (top, theirs, pair.away),
        (inner, deep, pair.home),
    ]
    for parent, child, server in links:
        link = await pair.host.set_state(parent, "m.space.child", {"via": [server.name]}, child)
        if parent == top:
            await pair.guest.sees(top, link)
    for person, more in [(pair.host, {private}), (pair.guest, set())]:
        wanted = {top, inner, deep, theirs} | more
        rooms = await known(person, top, deep, wanted)
        assert set(rooms) == wanted, f"{person.user_id} sees {rooms}"
        described(rooms[deep], room_id=deep, num_joined_members=1)
        shallow = await hierarchy(person, top, max_depth="1")
        assert set(shallow) == {top, inner, theirs} | more, f"one deep {person.user_id} sees {shallow}"


async def restricted_in_space(pair: Pair) -> None:
    """Who is in the space sees its restricted rooms there, with how to come in."""
    top = await pair.share(creation_content=SPACE)
    allow = [{"type": "m.room_membership", "room_id": top}]
    content = {"join_rule": "restricted", "allow": allow}
    rules: list[dict[str, Any]] = [{"type": "m.room.join_rules", "state_key": "", "content": content}]
    room = await pair.create(preset="private_chat", initial_state=rules)
    link = await pair.host.set_state(top, "m.space.child", {"via": [pair.home.name]}, room)
    await pair.guest.sees(top, link)
    for person in (pair.host, pair.guest):
        rooms = await known(person, top, room, {room})
    assert rooms[room]["join_rule"] == "restricted", str(rooms)
    await pair.enter(room)


async def public_rooms(pair: Pair) -> None:
    """The list of the other server, whole and searched."""
    word = secrets.token_hex(6)
    room = await pair.create(name=f"Public {word}", preset="public_chat", visibility="public")
    hidden = await pair.create(name=f"Hidden {word}", preset="public_chat")
    account = pair.guest.account
    body = {"filter": {"generic_search_term": word}, "limit": 1}

    async def found() -> list[Json]:
        searched = await account.call("POST", "/publicRooms", body, server=pair.home.name)
        return searched["chunk"]

    listed = await until_answer(found)
    assert [room["room_id"] for room in listed] == [room], f"found was {listed}"
    described(
        listed[0], name=f"Public {word}", num_joined_members=1, world_readable=False, guest_can_join=False
    )
    whole = await account.call("GET", "/publicRooms", server=pair.home.name)
    ids = {found["room_id"] for found in whole["chunk"]}
    assert room in ids and hidden not in ids, f"the list is {whole}"


async def summary(pair: Pair) -> None:
    """What a room is before one joins it."""
    texts = {"name": "Summary", "topic": "before joining"}
    room = await pair.create(preset="public_chat", **texts)
    path = f"/_matrix/client/v1/room_summary/{segment(room)}"

    async def told(person: Person) -> Json:
        return await person.account.get(path, via=pair.home.name)

    async def known_at_home() -> bool:
        summary = await told(pair.host)
        return texts.keys() <= summary.keys() and bool(summary.get("num_joined_members"))

    # Synapse names a room and counts its members some time after it was made, the one after the other; where the
    # count is missing other servers may take its answer for none.
    await until_answer(known_at_home)
    described(await told(pair.guest), room_id=room, num_joined_members=1, room_version=pair.version, **texts)


def described(room: Json, **wanted: Any) -> None:
    """Whether a public room is described so; join rule "public" is what is meant without one."""
    wanted["join_rule"] = "public"
    assert wanted.items() <= ({"join_rule": "public"} | room).items(), f"described as {room}"


async def known(person: Person, space: str, counted: str, wanted: set[str]) -> dict[str, Json]:
    """The rooms of a space, by id, once these are among them, one of them with its members.

    A Synapse knows kind and members of a room some time after it was made, and keeps for minutes what another server
    told of one: whoever is at the room's own server is to be asked first.
    """

    async def told() -> dict[str, Json] | None:
        rooms = await hierarchy(person, space)
        return rooms if wanted <= rooms.keys() and rooms[counted].get("num_joined_members") else None

    return await until_answer(told)


async def hierarchy(person: Person, space: str, **query: str) -> dict[str, Json]:
    """The rooms of a space, by id."""
    path = f"/_matrix/client/v1/rooms/{segment(space)}/hierarchy"
    answer = await person.account.get(path, **query)
    return {room["room_id"]: room for room in answer["rooms"]}
