"""Chapters: what is said in a room, and taken back."""

import asyncio
import secrets

from ..steps import until_answer
from .pair import Pair
from .person import Person, refused
from .watcher import Json, segment

CONTENT_REDACTS = 11
MANY = 40


async def join_by_alias(pair: Pair) -> None:
    """The directory of the other server, a join, and what was said before it."""
    local = f"story-{secrets.token_hex(4)}"
    room = await pair.create(preset="public_chat", name="Story", room_alias_name=local)
    await pair.host.say(room, "said before the guest came")
    joined = await pair.enter(f"#{local}:{pair.home.name}")
    assert joined == room, f"the alias led to {joined}"
    name = await pair.guest.state(room, "m.room.name")
    assert name == {"name": "Story"}, f"the guest sees the name {name}"

    async def backfilled() -> bool:
        return "said before the guest came" in await pair.guest.history(room)

    await until_answer(backfilled)


async def messages(pair: Pair) -> None:
    """Two each way, each seen by both."""
    room = await pair.share()
    for n in range(2):
        for author, reader in pair.both():
            body = f"{n} from {author.user_id}"
            event_id = await author.say(room, body)
            await reader.message(room, event_id, body)
            await author.message(room, event_id, body)


async def redactions(pair: Pair) -> None:
    """Each withdraws a message, and its content is gone at the other's; the form follows the room version."""
    room = await pair.share()
    for author, reader in pair.both():
        event_id = await said(author, reader, room)
        redaction = await reader.sees(room, await author.redact(room, event_id))
        holder = redaction["content"] if int(pair.version) >= CONTENT_REDACTS else redaction
        assert holder.get("redacts") == event_id, f"the redaction came as {redaction}"
        await is_empty(reader, room, event_id)


async def moderation(pair: Pair) -> None:
    """Who has no power may not redact what another said; a moderator of the other server may."""
    room = await pair.share()
    event_id = await said(pair.host, pair.guest, room)
    await refused(pair.guest.redact(room, event_id))
    await pair.guest.sees(room, await pair.host.give_power(room, {pair.guest.user_id: 50}))
    await pair.host.sees(room, await pair.guest.redact(room, event_id))
    await is_empty(pair.host, room, event_id)


async def redacted_state(pair: Pair) -> None:
    """Of redacted state both servers keep the same."""
    room = await pair.create(preset="private_chat", invite=[pair.guest.user_id])
    await pair.guest.finds(room, "invite")
    await pair.enter(room)
    levels = await pair.host.state(room, "m.room.power_levels") or {}
    allow = [{"type": "m.room_membership", "room_id": "!elsewhere:example.org"}]
    contents = {
        "m.room.history_visibility": {"history_visibility": "shared", "more": 1},
        "m.room.join_rules": {"join_rule": "invite", "allow": allow, "more": 1},
        "m.room.name": {"name": "a slip of the pen"},
        "m.room.power_levels": levels | {"invite": 1, "notifications": {"room": 60}, "more": 1},
    }
    for kind, content in contents.items():
        event_id = await pair.host.set_state(room, kind, content)
        await pair.guest.sees(room, event_id)
        await pair.guest.sees(room, await pair.host.redact(room, event_id))
        kept = [await person.state(room, kind) for person in (pair.host, pair.guest)]
        assert kept[0] == kept[1] != content, f"of {kind} one keeps {kept[0]}, the other {kept[1]}"


async def edits(pair: Pair) -> None:
    """An edit, a reaction and an answer in a thread are bundled at the other's, and gone when redacted."""
    room = await pair.share()
    for author, reader in pair.both():
        event_id = await said(author, reader, room)
        content = {"msgtype": "m.text", "body": "better"}
        edit = content | {
            "m.new_content": content,
            "m.relates_to": {"rel_type": "m.replace", "event_id": event_id},
        }
        reaction = {"m.relates_to": {"rel_type": "m.annotation", "event_id": event_id, "key": "👍"}}
        answer = content | {"m.relates_to": {"rel_type": "m.thread", "event_id": event_id}}
        sent = {
            "m.replace": await author.send(room, "m.room.message", edit),
            "m.annotation": await author.send(room, "m.reaction", reaction),
            "m.thread": await author.send(room, "m.room.message", answer),
        }
        for related in sent.values():
            await reader.sees(room, related)
        bundled = await bundle(reader, room, event_id)
        assert bundled["m.replace"]["event_id"] == sent["m.replace"], f"bundled is {bundled}"
        assert bundled["m.thread"]["count"] == 1, f"bundled is {bundled}"
        for kind, related in sent.items():
            assert await relations(reader, room, event_id, kind) == [related]
            await reader.sees(room, await author.redact(room, related))
            assert await relations(reader, room, event_id, kind) == []
        left = await bundle(reader, room, event_id)
        assert not left.keys() & sent.keys(), f"still bundled: {left}"


async def jump_to_date(pair: Pair) -> None:
    """The guest's server does not have what was said long before the join, and finds it by its time."""
    await far_back(pair)


async def around_date(pair: Pair) -> None:
    """The guest reads on from what was found by its time."""
    room, ids = await far_back(pair)
    path = f"/rooms/{segment(room)}/context/{segment(ids[2])}"
    around = await pair.guest.account.call("GET", path, limit="4")
    path = f"/rooms/{segment(room)}/messages"
    before = await pair.guest.account.call("GET", path, dir="b", limit="2", **{"from": around["start"]})
    events = [*around["events_before"], *before["chunk"]]
    assert [event["event_id"] for event in events[:2]] == [ids[1], ids[0]], f"before it: {events}"


async def far_back(pair: Pair) -> tuple[str, list[str]]:
    """A room and what was said there before the guest came, the third of it found by its time."""
    room = await pair.create(preset="public_chat")
    ids = []
    for n in range(MANY):
        ids.append(await pair.host.say(room, str(n)))
        # No two in one millisecond: one is found by its time.
        await asyncio.sleep(0.002)
    wanted = await pair.host.read(room, ids[2])
    await pair.enter(room)
    path = f"/_matrix/client/v1/rooms/{segment(room)}/timestamp_to_event"
    for direction in "fb":
        time = str(wanted["origin_server_ts"])
        found = await pair.guest.account.get(path, ts=time, dir=direction)
        assert found["event_id"] == wanted["event_id"], f"{direction}: {found}, not {wanted}"
    return room, ids


async def said(author: Person, reader: Person, room: str) -> str:
    """A message that the reader has."""
    event_id = await author.say(room, "a slip of the pen")
    await reader.message(room, event_id, "a slip of the pen")
    return event_id


async def is_empty(reader: Person, room: str, event_id: str) -> None:
    """The event has no content any more."""
    event = await reader.read(room, event_id)
    assert event["content"] == {}, f"after its redaction the event still says {event['content']}"
    assert "redacted_because" in event["unsigned"], f"nothing says why the event is empty: {event}"


async def bundle(reader: Person, room: str, event_id: str) -> Json:
    """What a server bundles with an event."""
    event = await reader.read(room, event_id)
    return event.get("unsigned", {}).get("m.relations", {})


async def relations(reader: Person, room: str, event_id: str, kind: str) -> list[str]:
    """The ids of what relates to an event in this way."""
    path = f"/_matrix/client/v1/rooms/{segment(room)}/relations/{segment(event_id)}/{kind}"
    return [event["event_id"] for event in (await reader.account.get(path))["chunk"]]
