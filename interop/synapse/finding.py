"""Chapters: spaces, lists of public rooms, summaries of rooms one is not in."""

import secrets
from typing import Any
from urllib.parse import quote

from .pair import Pair
from .person import Person
from .watcher import Json

SPACE = {"type": "m.space"}


async def spaces(pair: Pair) -> None:
    """A space of both servers' rooms, seen whole from the other server."""
    top = await pair.share(name="top", creation_content=SPACE)
    inner = await pair.create(name="inner", preset="public_chat", creation_content=SPACE)
    deep = await pair.create(name="deep", preset="public_chat")
    private = await pair.create(name="private", preset="private_chat")
    theirs = await pair.guest.create(pair.version, name="theirs", preset="public_chat")
    links = [(top, inner, pair.home), (top, private, pair.home), (top, theirs, pair.away), (inner, deep, pair.home)]
    for parent, child, server in links:
        link = await pair.host.set_state(parent, "m.space.child", {"via": [server.name]}, child)
        if parent == top:
            await pair.guest.sees(top, link)
    for person, more in [(pair.guest, set()), (pair.host, {private})]:
        rooms = await hierarchy(person, top)
        assert set(rooms) == {top, inner, deep, theirs} | more, f"{person.user_id} sees {rooms}"
        assert rooms[deep]["name"] == "deep", str(rooms[deep])
        assert rooms[theirs]["num_joined_members"] == 1, str(rooms[theirs])
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
    rooms = await hierarchy(pair.guest, top)
    assert rooms[room]["join_rule"] == "restricted", str(rooms)
    await pair.enter(room)


async def public_rooms(pair: Pair) -> None:
    """The list of the other server, whole and searched."""
    word = secrets.token_hex(6)
    room = await pair.create(name=f"Public {word}", preset="public_chat", visibility="public")
    hidden = await pair.create(name=f"Hidden {word}", preset="public_chat")
    account = pair.guest.account
    whole = await account.call("GET", "/publicRooms", server=pair.home.name)
    ids = {found["room_id"] for found in whole["chunk"]}
    assert room in ids and hidden not in ids, f"the list is {whole}"
    body = {"filter": {"generic_search_term": word}, "limit": 1}
    searched = await account.call("POST", "/publicRooms", body, server=pair.home.name)
    assert [found["room_id"] for found in searched["chunk"]] == [room], f"found was {searched}"
    found = searched["chunk"][0]
    wanted = {"num_joined_members": 1, "world_readable": False, "guest_can_join": False}
    assert wanted.items() <= found.items(), f"listed is {found}"
    # "public" is what is meant without it.
    assert found.get("join_rule", "public") == "public", f"listed is {found}"


async def summary(pair: Pair) -> None:
    """What a room is before one joins it."""
    room = await pair.create(name="Summary", topic="before joining", preset="public_chat")
    path = f"/_matrix/client/v1/room_summary/{quote(room)}"
    found = await pair.guest.account.get(path, via=pair.home.name)
    wanted = {
        "room_id": room,
        "name": "Summary",
        "topic": "before joining",
        "num_joined_members": 1,
        "room_version": pair.version,
    }
    assert wanted.items() <= found.items(), f"the summary is {found}"
    assert found.get("join_rule", "public") == "public", f"the summary is {found}"


async def hierarchy(person: Person, space: str, **query: str) -> dict[str, Json]:
    """The rooms of a space, by id."""
    path = f"/_matrix/client/v1/rooms/{quote(space)}/hierarchy"
    answer = await person.account.get(path, **query)
    return {room["room_id"]: room for room in answer["rooms"]}
