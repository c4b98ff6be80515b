"""One user's view of a server through `/sync`, as plain JSON."""

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import aiohttp

from ..accounts import Account, Refused

Json = dict[str, Any]


class Watcher:
    """Syncs when asked to wait for something, and remembers the rooms' events in order."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.user_id = account.user_id
        self.since: str | None = None
        self.timeline: dict[str, list[Json]] = {}
        self.invited: set[str] = set()
        self.sent = 0

    async def sync(self) -> None:
        """One turn of `/sync`; a server that is down is asked again later."""
        query = {"timeout": "1000"} | ({"since": self.since} if self.since else {})
        try:
            answer = await self.account.call("GET", "/sync", **query)
        except (aiohttp.ClientError, OSError):
            await asyncio.sleep(0.2)
            return
        self.since = answer["next_batch"]
        rooms = answer.get("rooms", {})
        self.invited |= set(rooms.get("invite", {}))
        for section in ("join", "leave"):
            for room, view in rooms.get(section, {}).items():
                self.timeline.setdefault(room, []).extend(view.get("timeline", {}).get("events", []))

    async def event(self, room: str, matches: Callable[[Json], Any]) -> Json:
        """Waits for an event in the room's timeline."""
        while True:
            for event in self.timeline.get(room, []):
                if matches(event):
                    return event
            await self.sync()

    async def message(self, room: str, event_id: str, body: str) -> None:
        """Waits for a message and compares its text."""
        event = await self.event(room, lambda event: event["event_id"] == event_id)
        assert event["content"].get("body") == body, f"sent {body!r}, received {event['content']}"

    async def membership(self, room: str, user_id: str, membership: str, **content: str) -> Json:
        """Waits for a membership event with this content."""

        def matches(event: Json) -> bool:
            is_it = event["type"] == "m.room.member" and event.get("state_key") == user_id
            wanted = {"membership": membership} | content
            return is_it and wanted.items() <= event["content"].items()

        return await self.event(room, matches)

    async def invitation(self, room: str) -> None:
        """Waits to be invited."""
        while room not in self.invited:
            await self.sync()

    async def say(self, room: str, body: str) -> str:
        """Sends a text; gives its event id."""
        self.sent += 1
        path = f"/rooms/{quote(room)}/send/m.room.message/{self.user_id}-{self.sent}"
        answer = await self.account.call("PUT", path, {"msgtype": "m.text", "body": body})
        return answer["event_id"]

    async def redact(self, room: str, event_id: str) -> str:
        """Redacts an event."""
        self.sent += 1
        path = f"/rooms/{quote(room)}/redact/{quote(event_id)}/{self.user_id}-{self.sent}"
        return (await self.account.call("PUT", path, {"reason": "a mistake"}))["event_id"]

    async def set_state(self, room: str, kind: str, content: Json) -> str:
        """Sets a state event with an empty key."""
        path = f"/rooms/{quote(room)}/state/{kind}"
        return (await self.account.call("PUT", path, content))["event_id"]

    async def state(self, room: str, kind: str, key: str = "") -> Json | None:
        """Reads a state event's content; None when there is none."""
        try:
            return await self.account.call("GET", f"/rooms/{quote(room)}/state/{kind}/{quote(key)}")
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    async def content_of(self, room: str, event_id: str) -> Json:
        """Reads one event's content."""
        path = f"/rooms/{quote(room)}/event/{quote(event_id)}"
        return (await self.account.call("GET", path))["content"]

    async def history(self, room: str) -> list[str]:
        """The texts of the room, newest first."""
        path = f"/rooms/{quote(room)}/messages"
        answer = await self.account.call("GET", path, dir="b", limit="100")
        return [event["content"]["body"] for event in answer["chunk"] if "body" in event["content"]]
