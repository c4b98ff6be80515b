"""Chapters: state, and who may set it."""

from ..accounts import Refused
from .agreement import agree
from .pair import Pair, person
from .person import refused
from .watcher import Json, segment

OWNED = "org.matrix.msc3757.11"
PLACE = "org.example.place"


async def states(pair: Pair) -> None:
    """The guest is given the power to set the topic, each sets it, and it is taken from the guest again."""
    room = await pair.share()
    await refused(pair.guest.set_state(room, "m.room.topic", {"topic": "not yet"}))
    await pair.guest.sees(room, await pair.host.give_power(room, {pair.guest.user_id: 50}))
    for author, reader in pair.both():
        topic = {"topic": f"set by {author.user_id}"}
        await reader.sees(room, await author.set_state(room, "m.room.topic", topic))
        content = await reader.state(room, "m.room.topic") or {}
        assert content.get("topic") == topic["topic"], f"the topic read is {content}"
    await pair.guest.sees(room, await pair.host.give_power(room, {pair.guest.user_id: 0}))
    await refused(pair.guest.set_state(room, "m.room.topic", {"topic": "no longer"}))
    await agree(room, pair.host, pair.guest)


async def redacted_levels(pair: Pair) -> None:
    """Redaction takes out of the power levels who may invite: both servers let everybody from then on."""
    room, friend = await pair.share(), await person(pair.away, "friend")
    levels = await pair.host.state(room, "m.room.power_levels") or {}
    event_id = await pair.host.set_state(room, "m.room.power_levels", levels | {"invite": 60})
    await pair.guest.sees(room, event_id)
    await refused(pair.guest.put("invite", room, friend))
    await pair.guest.sees(room, await pair.host.redact(room, event_id))
    await pair.guest.put("invite", room, friend)
    await pair.host.membership(room, friend.user_id, "invite")
    await agree(room, pair.host, pair.guest)


async def owned_state(pair: Pair) -> None:
    """In a room version of MSC3757 each sets the state that is its own, the more powerful also that of others."""
    levels = {"events": {PLACE: 0}}
    room = await pair.host.create(OWNED, preset="public_chat", power_level_content_override=levels)
    await pair.enter(room)
    for owner, other in pair.both():
        for key in (owner.user_id, f"{owner.user_id}_desk"):
            await other.sees(room, await owner.set_state(room, PLACE, {"floor": 3}, key))
    host, guest = (f"{person.user_id}_desk" for person in (pair.host, pair.guest))
    await refused(pair.guest.set_state(room, PLACE, {"floor": 4}, host))
    await pair.guest.sees(room, await pair.host.set_state(room, PLACE, {"floor": 4}, guest))
    await agree(room, pair.host, pair.guest)


async def server_acl(pair: Pair) -> None:
    """A server that the room denies is not heard there, cannot join, and is heard again afterwards."""
    room, elsewhere, apart = await pair.share(), await pair.share(), await pair.create(preset="public_chat")
    host, guest = pair.host, pair.guest
    denied = {"allow": ["*"], "deny": [pair.away.name.split(":")[0]], "allow_ip_literals": True}
    await guest.sees(room, await host.set_state(room, "m.room.server_acl", denied))
    await host.set_state(apart, "m.room.server_acl", denied)
    await refused(guest.join(apart, pair.home))
    try:
        unheard = await guest.say(room, "not to be heard")
        typing = f"/rooms/{segment(room)}/typing/{segment(guest.user_id)}"
        await guest.account.call("PUT", typing, {"typing": True, "timeout": 30_000})
    except Refused:
        unheard = ""
    # What is sent in order and comes afterwards shows that the other would have come.
    await host.sees(elsewhere, await guest.say(elsewhere, "heard"))
    await host.sync()
    assert unheard not in [event["event_id"] for event in host.timeline[room]], "heard although denied"
    assert not host.ephemeral.get(room), f"heard although denied: {host.ephemeral[room]}"
    allowed = denied | {"deny": []}
    await guest.sees(room, await host.set_state(room, "m.room.server_acl", allowed))
    await host.message(room, await guest.say(room, "heard again"), "heard again")


async def lasting_state(pair: Pair) -> None:
    """Neither server lets its user redact a server ACL, or the event that created the room."""
    room = await pair.share()
    path = f"/rooms/{segment(room)}/state"
    state: list[Json] = await pair.host.account.call("GET", path)  # type: ignore[assignment]
    create = next(event["event_id"] for event in state if event["type"] == "m.room.create")
    allowed = {"allow": ["*"], "deny": [], "allow_ip_literals": True}
    acl = await pair.host.set_state(room, "m.room.server_acl", allowed)
    await pair.guest.sees(room, acl)
    await pair.guest.sees(room, await pair.host.give_power(room, {pair.guest.user_id: 50}))
    for someone, _ in pair.both():
        for event_id in (acl, create):
            await refused(someone.redact(room, event_id))
    assert await pair.guest.state(room, "m.room.server_acl") == allowed, "the server ACL has changed"
    await pair.host.message(room, await pair.guest.say(room, "still heard"), "still heard")
