"""What two servers must manage together, told from the server where the room is."""

import secrets
from typing import Any
from urllib.parse import quote

from ..accounts import Refused, sign_up
from ..steps import Steps, until_answer
from .servers import Server
from .watcher import Watcher

CATCH_UP_LIMIT = 120.0


class Story:
    """A room on `home`, and a user of `away` who comes in."""

    def __init__(self, home: Server, away: Server) -> None:
        self.home, self.away = home, away
        self.steps = Steps(f"{away.label} in a {home.label} room")
        self.room = ""
        self.host: Watcher
        self.guest: Watcher

    async def tell(self) -> None:
        """All chapters in order."""
        for name, chapter in [
            ("sign up", self.sign_up),
            ("join by alias, with the history", self.join_by_alias),
            ("messages both ways", self.messages),
            ("redactions both ways", self.redactions),
            ("profile changes both ways", self.profiles),
            ("state both ways", self.states),
            ("kick, and no more after it", self.kick),
            ("invite and join", self.invite),
            ("refuse an invitation", self.refuse),
            ("ban and unban", self.ban),
            ("leave", self.leave),
        ]:
            await self.steps.run(name, chapter())
        for down, up in [(self.away, self.home), (self.home, self.away)]:
            name = f"{down.label} was down and catches up"
            await self.steps.run(name, self.catch_up(down, up), CATCH_UP_LIMIT)

    async def sign_up(self) -> None:
        """One user on each server."""
        self.host = Watcher(await sign_up(self.home.base, "host", self.home.registration))
        self.guest = Watcher(await sign_up(self.away.base, "guest", self.away.registration))

    async def create(self, **options: Any) -> str:
        """A room on the home server."""
        return (await self.host.account.call("POST", "/createRoom", options))["room_id"]

    async def join(self, room_or_alias: str) -> str:
        """The guest joins."""
        path = f"/join/{quote(room_or_alias)}"
        return (await self.guest.account.call("POST", path, {}, via=self.home.name))["room_id"]

    async def join_by_alias(self) -> None:
        """The directory of the other server, a join, and what was said before it."""
        local = f"story-{secrets.token_hex(4)}"
        self.room = await self.create(preset="public_chat", name="Story", room_alias_name=local)
        await self.host.say(self.room, "said before the guest came")
        joined = await self.join(f"#{local}:{self.home.name}")
        assert joined == self.room, f"the alias led to {joined}"
        await self.host.membership(self.room, self.guest.user_id, "join")
        name = await self.guest.state(self.room, "m.room.name")
        assert name == {"name": "Story"}, f"the guest sees the name {name}"

        async def backfilled() -> bool:
            return "said before the guest came" in await self.guest.history(self.room)

        await until_answer(backfilled)

    async def messages(self) -> None:
        """Three each way, each seen by both."""
        for n in range(3):
            for author, reader in [(self.host, self.guest), (self.guest, self.host)]:
                body = f"{n} from {author.user_id}"
                event_id = await author.say(self.room, body)
                await reader.message(self.room, event_id, body)
                await author.message(self.room, event_id, body)

    async def redactions(self) -> None:
        """Each withdraws a message, and its content is gone at the other's."""
        for author, reader in [(self.host, self.guest), (self.guest, self.host)]:
            event_id = await author.say(self.room, "a slip of the pen")
            await reader.message(self.room, event_id, "a slip of the pen")
            redaction = await author.redact(self.room, event_id)
            await reader.event(self.room, lambda event, id=redaction: event["event_id"] == id)
            content = await reader.content_of(self.room, event_id)
            assert content == {}, f"after its redaction the event still says {content}"

    async def profiles(self) -> None:
        """A new display name is a membership event for the other, and federation answers it too."""
        for changed, other in [(self.host, self.guest), (self.guest, self.host)]:
            name = f"Agent {secrets.token_hex(3)}"
            path = f"/profile/{quote(changed.user_id)}/displayname"
            await changed.account.call("PUT", path, {"displayname": name})
            await other.membership(self.room, changed.user_id, "join", displayname=name)
            seen = await other.account.call("GET", path)
            assert seen.get("displayname") == name, f"the profile asked across servers is {seen}"

    async def states(self) -> None:
        """The guest is given the power to set the topic, and each sets it."""
        levels = await self.host.state(self.room, "m.room.power_levels") or {}
        levels.setdefault("users", {})[self.guest.user_id] = 50
        given = await self.host.set_state(self.room, "m.room.power_levels", levels)
        await self.guest.event(self.room, lambda event: event["event_id"] == given)
        for author, reader in [(self.host, self.guest), (self.guest, self.host)]:
            topic = {"topic": f"set by {author.user_id}"}
            event_id = await author.set_state(self.room, "m.room.topic", topic)
            await reader.event(self.room, lambda event, id=event_id: event["event_id"] == id)
            content = await reader.state(self.room, "m.room.topic") or {}
            assert content.get("topic") == topic["topic"], f"the topic read is {content}"

    async def kick(self) -> None:
        """The guest is put out, may not speak, and may come back."""
        body = {"user_id": self.guest.user_id, "reason": "wrong room"}
        await self.host.account.call("POST", f"/rooms/{quote(self.room)}/kick", body)
        await self.guest.membership(self.room, self.guest.user_id, "leave", reason="wrong room")
        await refused(self.guest.say(self.room, "I am still here"))
        await self.join(self.room)
        body = "back again"
        await self.host.message(self.room, await self.guest.say(self.room, body), body)

    async def invite(self) -> None:
        """A private room: no way in without an invitation."""
        room = await self.create(preset="private_chat")
        await refused(self.join(room))
        body = {"user_id": self.guest.user_id}
        await self.host.account.call("POST", f"/rooms/{quote(room)}/invite", body)
        await self.guest.invitation(room)
        await self.join(room)
        await self.host.message(room, await self.guest.say(room, "thank you"), "thank you")

    async def refuse(self) -> None:
        """The guest turns an invitation down, and the host sees it."""
        room = await self.create(preset="private_chat", invite=[self.guest.user_id])
        await self.guest.invitation(room)
        await self.guest.account.call("POST", f"/rooms/{quote(room)}/leave", {})
        await self.host.membership(room, self.guest.user_id, "leave")

    async def ban(self) -> None:
        """A banned guest cannot come in until the ban is lifted."""
        room = await self.create(preset="public_chat")
        await self.join(room)
        await self.host.membership(room, self.guest.user_id, "join")
        body = {"user_id": self.guest.user_id}
        await self.host.account.call("POST", f"/rooms/{quote(room)}/ban", body)
        await self.guest.membership(room, self.guest.user_id, "ban")
        await refused(self.join(room))
        await self.host.account.call("POST", f"/rooms/{quote(room)}/unban", body)
        await self.join(room)

    async def leave(self) -> None:
        """The guest leaves by itself, and the host sees it."""
        room = await self.create(preset="public_chat")
        await self.join(room)
        await self.host.membership(room, self.guest.user_id, "join")
        await self.guest.account.call("POST", f"/rooms/{quote(room)}/leave", {})
        await self.host.membership(room, self.guest.user_id, "leave")

    async def catch_up(self, down: Server, up: Server) -> None:
        """While one server is down the other's user goes on; afterwards both know everything."""
        at_down = self.guest if down is self.away else self.host
        at_up = self.host if down is self.away else self.guest
        await down.stop()
        missed = [(await at_up.say(self.room, f"missed {n}"), f"missed {n}") for n in range(5)]
        topic = {"topic": f"changed while {down.label} was down"}
        changed = await at_up.set_state(self.room, "m.room.topic", topic)
        await down.start()
        back = await at_down.say(self.room, "I was away")
        await at_up.message(self.room, back, "I was away")
        for event_id, body in missed:
            await at_down.message(self.room, event_id, body)
        await at_down.event(self.room, lambda event: event["event_id"] == changed)
        ids = [event_id for event_id, _ in missed]
        order = [event["event_id"] for event in at_down.timeline[self.room]]
        assert [event_id for event_id in order if event_id in ids] == ids, "another order, or twice"
        content = await at_down.state(self.room, "m.room.topic") or {}
        assert content.get("topic") == topic["topic"], f"after catching up the topic is {content}"


async def refused(request: Any) -> None:
    """The request must be answered with 403."""
    try:
        answer = await request
    except Refused as refusal:
        assert refusal.status == 403, str(refusal)
    else:
        raise AssertionError(f"this should have been refused, and gave {answer}")
