"""Chapters: who is there, what they are called, what they type and have read."""

import secrets

from .pair import Pair
from .peer import transactions
from .watcher import Json, Watcher, segment


async def profiles(pair: Pair) -> None:
    """A new display name is a membership event for the other, and federation answers it too."""
    room = await pair.share()
    for changed, other in pair.both():
        name = f"Agent {secrets.token_hex(3)}"
        path = f"/profile/{segment(changed.user_id)}/displayname"
        await changed.account.call("PUT", path, {"displayname": name})
        await other.membership(room, changed.user_id, "join", displayname=name)
        seen = await other.account.call("GET", path)
        assert seen.get("displayname") == name, f"the profile asked across servers is {seen}"


async def profile_fields(pair: Pair) -> None:
    """Other fields of a profile are told across servers, alone and together, unless they were deleted."""
    for changed, other in pair.both():
        whole = f"/profile/{segment(changed.user_id)}"
        for field in ("m.tz", "org.example.gone"):
            await changed.account.call("PUT", f"{whole}/{field}", {field: "Europe/Paris"})
        await changed.account.call("DELETE", f"{whole}/org.example.gone")
        for asked in (f"{whole}/m.tz", whole):
            seen = await other.account.call("GET", asked)
            assert seen.get("m.tz") == "Europe/Paris", f"{asked} gave {seen}"
        assert "org.example.gone" not in seen, f"a deleted field is told: {seen}"


async def presence(pair: Pair) -> None:
    """What one says of oneself reaches the other."""
    await pair.share()
    for changed, other in pair.both():
        text = f"busy {secrets.token_hex(3)}"
        path = f"/presence/{segment(changed.user_id)}/status"
        async with transactions:
            await changed.account.call("PUT", path, {"presence": "online", "status_msg": text})
            await other.until(lambda: other.presence.get(changed.user_id, {}).get("status_msg") == text)
        seen = await other.account.call("GET", path)
        assert seen["presence"] == "online" and seen["status_msg"] == text, str(seen)


async def typing(pair: Pair) -> None:
    """Typing begins and ends."""
    room = await pair.share()
    for writer, reader in pair.both():
        path = f"/rooms/{segment(room)}/typing/{segment(writer.user_id)}"
        for is_typing in (True, False):
            await writer.account.call("PUT", path, {"typing": is_typing, "timeout": 30_000})
            await reader.until(lambda: (writer.user_id in typists(reader, room)) == is_typing)


async def receipts(pair: Pair) -> None:
    """Public receipts reach the other, with their thread; private ones do not."""
    room = await pair.share()
    for author, reader in pair.both():
        ids = [await author.say(room, str(n)) for n in range(3)]
        await reader.sees(room, ids[2])
        path = f"/rooms/{segment(room)}/receipt"
        await reader.account.call("POST", f"{path}/m.read.private/{segment(ids[2])}", {})
        await reader.account.call("POST", f"{path}/m.read/{segment(ids[0])}", {"thread_id": "main"})
        await author.until(lambda: read(author, room, ids[0], reader))
        receipt = read(author, room, ids[0], reader) or {}
        assert receipt.get("thread_id") == "main", f"the receipt came as {receipt}"
        await reader.account.call("POST", f"{path}/m.read/{segment(ids[1])}", {})
        await author.until(lambda: read(author, room, ids[1], reader))
        assert not read(author, room, ids[2], reader), "a private receipt was told"


def typists(reader: Watcher, room: str) -> list[str]:
    """Who types, as the reader knows."""
    told = [event for event in reader.ephemeral.get(room, []) if event["type"] == "m.typing"]
    return told[-1]["content"]["user_ids"] if told else []


def read(author: Watcher, room: str, event_id: str, reader: Watcher) -> Json | None:
    """The receipt of a reader for an event, as the author was told."""
    for event in author.ephemeral.get(room, []):
        if event["type"] == "m.receipt":
            for readers in event["content"].get(event_id, {}).values():
                if reader.user_id in readers:
                    return readers[reader.user_id]
    return None
