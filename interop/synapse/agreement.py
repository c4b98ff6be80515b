"""Whether servers know the same of a room."""

import asyncio
import json
import time

from .watcher import Json, Watcher, segment

AGREE_LIMIT = 30.0
# What a server adds for its clients, each in its way.
OWN = ("unsigned", "age", "user_id", "replaces_state", "prev_content", "redacted_because")


async def agree(room: str, *people: Watcher) -> None:
    """Waits until all people's servers give the same state and the same members, byte for byte."""
    end = time.monotonic() + AGREE_LIMIT
    while True:
        views = await asyncio.gather(*(view(person, room) for person in people))
        if all(other == views[0] for other in views[1:]):
            return
        assert time.monotonic() < end, difference(people, views)
        await asyncio.sleep(0.5)


async def view(person: Watcher, room: str) -> set[str]:
    """State events and joined members as one server gives them, each as canonical JSON."""
    path = f"/rooms/{segment(room)}"
    state: list[Json] = await person.account.call("GET", f"{path}/state")  # type: ignore[assignment]
    members = await person.account.call("GET", f"{path}/joined_members")
    own = [{key: event[key] for key in event if key not in OWN} for event in state]
    return {json.dumps(item, sort_keys=True) for item in [*own, {"joined": sorted(members["joined"])}]}


def difference(people: tuple[Watcher, ...], views: list[set[str]]) -> str:
    """What not all have."""
    shared = set.intersection(*views)
    lines = [
        f"  {person.user_id}: {sorted(seen - shared)}" for person, seen in zip(people, views, strict=True)
    ]
    return "\n".join(["the servers do not agree:", *lines])
