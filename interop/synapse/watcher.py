"""One user's view of a server through `/sync`, as plain JSON."""

import asyncio
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import aiohttp

from ..accounts import Account, Refused

Json = dict[str, Any]

FILTER = json.dumps({"room": {"timeline": {"limit": 100}}})


class Watcher:
    """Syncs when asked to wait for something, and remembers what came."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.user_id = account.user_id
        self.filter = FILTER
        self.since: str | None = None
        self.timeline: dict[str, list[Json]] = {}
        self.section: dict[str, str] = {}
        self.ephemeral: dict[str, list[Json]] = {}
        self.presence: dict[str, Json] = {}
        self.to_device: list[Json] = []
        self.devices_changed: set[str] = set()
        self.devices_left: set[str] = set()

    async def sync(self) -> None:
        """One turn of `/sync`; a server that is down is asked again later."""
        query = {"timeout": "1000", "filter": self.filter} | ({"since": self.since} if self.since else {})
        try:
            answer = await self.account.call("GET", "/sync", **query)
        except (aiohttp.ClientError, OSError):
            await asyncio.sleep(0.2)
            return
        self.since = answer["next_batch"]
        for section, rooms in answer.get("rooms", {}).items():
            for room, view in rooms.items():
                self.section[room] = section
                self.timeline.setdefault(room, []).extend(view.get("timeline", {}).get("events", []))
                self.ephemeral.setdefault(room, []).extend(view.get("ephemeral", {}).get("events", []))
        for event in answer.get("presence", {}).get("events", []):
            self.presence[event["sender"]] = event["content"]
        self.to_device += answer.get("to_device", {}).get("events", [])
        devices = answer.get("device_lists", {})
        self.devices_changed |= set(devices.get("changed", []))
        self.devices_left |= set(devices.get("left", []))

    async def until(self, look: Callable[[], Any]) -> Any:
        """Syncs until `look` gives something truthy, and gives that."""
        while not (value := look()):
            await self.sync()
        return value

    async def event(self, room: str, matches: Callable[[Json], Any]) -> Json:
        """Waits for an event in the room's timeline."""
        return await self.until(lambda: next(filter(matches, self.timeline.get(room, [])), None))

    async def sees(self, room: str, event_id: str) -> Json:
        """Waits for the event with this id."""
        return await self.event(room, lambda event: event["event_id"] == event_id)

    async def message(self, room: str, event_id: str, body: str) -> None:
        """Waits for a message and compares its text."""
        event = await self.sees(room, event_id)
        assert event["content"].get("body") == body, f"sent {body!r}, received {event['content']}"

    async def membership(self, room: str, user_id: str, membership: str, **content: str) -> Json:
        """Waits for a membership event with this content."""

        def matches(event: Json) -> bool:
            is_it = event["type"] == "m.room.member" and event.get("state_key") == user_id
            wanted = {"membership": membership} | content
            return is_it and wanted.items() <= event["content"].items()

        return await self.event(room, matches)

    def member(self, room: str, user_id: str) -> str | None:
        """The last membership of somebody that came."""
        is_it = ("m.room.member", user_id)
        told = [e for e in self.timeline.get(room, []) if (e["type"], e.get("state_key")) == is_it]
        return told[-1]["content"]["membership"] if told else None

    async def finds(self, room: str, section: str) -> None:
        """Waits until the room stands under `join`, `invite`, `knock` or `leave`."""
        await self.until(lambda: self.section.get(room) == section)

    async def state(self, room: str, kind: str, key: str = "") -> Json | None:
        """Reads a state event's content; None when there is none."""
        try:
            return await self.account.call("GET", f"/rooms/{segment(room)}/state/{kind}/{segment(key)}")
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    async def read(self, room: str, event_id: str) -> Json:
        """Reads one event."""
        return await self.account.call("GET", f"/rooms/{segment(room)}/event/{segment(event_id)}")

    async def history(self, room: str) -> list[str]:
        """The texts of the room, newest first."""
        path = f"/rooms/{segment(room)}/messages"
        answer = await self.account.call("GET", path, dir="b", limit="100")
        return [event["content"]["body"] for event in answer["chunk"] if "body" in event["content"]]


def segment(text: str) -> str:
    """A part of a path; ids of events may have slashes."""
    return quote(text, safe="")
