"""A user who watches and acts."""

from typing import Any

from ..accounts import Account, Refused
from .servers import Server
from .watcher import Json, Watcher, segment


class Person(Watcher):
    """A user of one of the servers: what one does at a client."""

    def __init__(self, account: Account, server: Server) -> None:
        super().__init__(account)
        self.server = server
        self.sent = 0

    async def create(self, version: str, **options: Any) -> str:
        """Makes a room of this version."""
        body = {"room_version": version} | options
        return (await self.account.call("POST", "/createRoom", body))["room_id"]

    async def join(self, room_or_alias: str, *via: Server) -> str:
        """Joins through these servers, asked in this order; gives the room's id."""
        path = f"/join/{segment(room_or_alias)}"
        names = [server.name for server in via]
        return (await self.account.call("POST", path, {}, via=names))["room_id"]

    async def knock(self, room: str, via: Server, reason: str) -> None:
        """Knocks through a server."""
        await self.account.call("POST", f"/knock/{segment(room)}", {"reason": reason}, via=via.name)

    async def leave(self, room: str) -> None:
        """Leaves, or turns an invitation down, or knocks no longer."""
        await self.account.call("POST", f"/rooms/{segment(room)}/leave", {})

    async def put(self, act: str, room: str, other: Watcher, **content: str) -> None:
        """Does `invite`, `kick`, `ban` or `unban` to another."""
        body = {"user_id": other.user_id} | content
        await self.account.call("POST", f"/rooms/{segment(room)}/{act}", body)

    async def send(self, room: str, kind: str, content: Json) -> str:
        """Sends an event; gives its id."""
        path = f"/rooms/{segment(room)}/send/{kind}/{self._transaction()}"
        return (await self.account.call("PUT", path, content))["event_id"]

    async def say(self, room: str, body: str) -> str:
        """Sends a text; gives its event id."""
        return await self.send(room, "m.room.message", {"msgtype": "m.text", "body": body})

    async def redact(self, room: str, event_id: str) -> str:
        """Redacts an event; gives the id of the redaction."""
        path = f"/rooms/{segment(room)}/redact/{segment(event_id)}/{self._transaction()}"
        return (await self.account.call("PUT", path, {"reason": "a mistake"}))["event_id"]

    async def set_state(self, room: str, kind: str, content: Json, key: str = "") -> str:
        """Sets a state event; gives its id."""
        path = f"/rooms/{segment(room)}/state/{kind}/{segment(key)}"
        return (await self.account.call("PUT", path, content))["event_id"]

    async def give_power(self, room: str, levels: dict[str, int]) -> str:
        """Changes what users may; gives the id of the new power levels."""
        content = await self.state(room, "m.room.power_levels") or {}
        content["users"] = content.get("users", {}) | levels
        return await self.set_state(room, "m.room.power_levels", content)

    async def to_devices(self, kind: str, messages: Json) -> None:
        """Sends to devices: user, device, content."""
        path = f"/sendToDevice/{kind}/{self._transaction()}"
        await self.account.call("PUT", path, {"messages": messages})

    def _transaction(self) -> str:
        self.sent += 1
        return f"{self.user_id}-{self.sent}"


async def refused(request: Any, *statuses: int) -> Json:
    """The request must be answered with one of these statuses, 403 unless said; gives the answer."""
    try:
        answer = await request
    except Refused as refusal:
        assert refusal.status in (statuses or (403,)), str(refusal)
        return refusal.answer
    raise AssertionError(f"this should have been refused, and gave {answer}")
