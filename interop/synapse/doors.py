"""Chapters: who comes in, who does not, who goes."""

from typing import Any

from .pair import Pair
from .person import refused
from .watcher import Json


async def kick(pair: Pair) -> None:
    """The guest is put out, may not speak, and may come back."""
    room = await pair.share()
    await pair.host.put("kick", room, pair.guest, reason="wrong room")
    await pair.guest.membership(room, pair.guest.user_id, "leave", reason="wrong room")
    await refused(pair.guest.say(room, "I am still here"))
    await pair.enter(room)
    await pair.host.message(room, await pair.guest.say(room, "back again"), "back again")


async def invite(pair: Pair) -> None:
    """A private room: no way in without an invitation."""
    room = await pair.create(preset="private_chat")
    await refused(pair.guest.join(room, pair.home))
    await pair.host.put("invite", room, pair.guest, reason="you belong here")
    await pair.guest.finds(room, "invite")
    await pair.enter(room)
    await pair.host.message(room, await pair.guest.say(room, "thank you"), "thank you")


async def refuse(pair: Pair) -> None:
    """The guest turns an invitation down, and the host sees it."""
    room = await invited(pair)
    await pair.guest.leave(room)
    await pair.host.membership(room, pair.guest.user_id, "leave")
    await refused(pair.guest.join(room, pair.home))


async def withdraw_invite(pair: Pair) -> None:
    """The host takes an invitation back, and the guest sees it."""
    room = await invited(pair)
    await pair.host.put("kick", room, pair.guest)
    await pair.guest.finds(room, "leave")
    await refused(pair.guest.join(room, pair.home))


async def ban(pair: Pair) -> None:
    """A banned guest cannot come in until the ban is lifted."""
    room = await pair.share()
    await pair.host.put("ban", room, pair.guest)
    await pair.guest.membership(room, pair.guest.user_id, "ban")
    await refused(pair.guest.join(room, pair.home))
    await pair.host.put("unban", room, pair.guest)
    await pair.enter(room)


async def invite_after_ban(pair: Pair) -> None:
    """A banned guest cannot be invited, and can once the ban is lifted."""
    room = await pair.create(preset="private_chat", invite=[pair.guest.user_id])
    await pair.guest.finds(room, "invite")
    await pair.enter(room)
    await pair.host.put("ban", room, pair.guest)
    await pair.guest.finds(room, "leave")
    await refused(pair.host.put("invite", room, pair.guest))
    await pair.host.put("unban", room, pair.guest)
    await pair.host.put("invite", room, pair.guest)
    await pair.guest.finds(room, "invite")
    await pair.enter(room)


async def leave(pair: Pair) -> None:
    """The guest leaves by itself, and the host sees it."""
    room = await pair.share()
    await pair.guest.leave(room)
    await pair.host.membership(room, pair.guest.user_id, "leave")


async def come_back(pair: Pair) -> None:
    """The host leaves, so that no one of its server is left, and comes back through the guest's."""
    room = await pair.share()
    await pair.host.leave(room)
    await pair.guest.membership(room, pair.host.user_id, "leave")
    await pair.guest.say(room, "alone here")
    await pair.host.join(room, pair.away)
    await pair.guest.message(room, await pair.host.say(room, "here again"), "here again")


async def knock(pair: Pair) -> None:
    """The guest knocks, and is let in."""
    room = await closed(pair, {"join_rule": "knock"})
    await refused(pair.guest.join(room, pair.home))
    await pair.guest.knock(room, pair.home, "let me in")
    await pair.host.membership(room, pair.guest.user_id, "knock", reason="let me in")
    await pair.guest.finds(room, "knock")
    await pair.host.put("invite", room, pair.guest)
    await pair.guest.finds(room, "invite")
    await pair.enter(room)


async def refuse_knock(pair: Pair) -> None:
    """The guest knocks, and is not let in."""
    room = await knocked(pair)
    await pair.host.put("kick", room, pair.guest)
    await refused(pair.guest.join(room, pair.home))


async def told_of_refused_knock(pair: Pair) -> None:
    """The guest knocks, and is told that it is not let in."""
    room = await knocked(pair)
    await pair.host.put("kick", room, pair.guest)
    await pair.guest.finds(room, "leave")


async def withdraw_knock(pair: Pair) -> None:
    """The guest knocks no longer, and the host sees it."""
    room = await knocked(pair)
    await pair.guest.leave(room)
    await pair.host.membership(room, pair.guest.user_id, "leave")


async def restricted(pair: Pair) -> None:
    """Who is in the space may come in, as long as it is there."""
    space, room = await behind_space(pair, "restricted")
    await refused(pair.guest.join(room, pair.home))
    await pair.enter(space)
    await pair.enter(room)
    event = await pair.host.membership(room, pair.guest.user_id, "join")
    voucher = event["content"].get("join_authorised_via_users_server")
    assert voucher == pair.host.user_id, f"the join came in as {event['content']}"
    await pair.host.message(room, await pair.guest.say(room, "here"), "here")
    for place in (room, space):
        await pair.guest.leave(place)
        await pair.host.membership(place, pair.guest.user_id, "leave")
    await refused(pair.guest.join(room, pair.home))


async def knock_restricted(pair: Pair) -> None:
    """Who is not in the space may knock; who is may come in."""
    space, room = await behind_space(pair, "knock_restricted")
    await refused(pair.guest.join(room, pair.home))
    await pair.guest.knock(room, pair.home, "let me in")
    await pair.host.membership(room, pair.guest.user_id, "knock")
    await pair.enter(space)
    await pair.enter(room)
    await pair.host.message(room, await pair.guest.say(room, "here"), "here")


async def invited(pair: Pair) -> str:
    """A private room that the guest is invited to."""
    room = await pair.create(preset="private_chat", invite=[pair.guest.user_id])
    await pair.guest.finds(room, "invite")
    return room


async def knocked(pair: Pair) -> str:
    """A room where the guest has knocked."""
    room = await closed(pair, {"join_rule": "knock"})
    await pair.guest.knock(room, pair.home, "let me in")
    await pair.host.membership(room, pair.guest.user_id, "knock")
    await pair.guest.finds(room, "knock")
    return room


async def closed(pair: Pair, rules: Json) -> str:
    """A private room with these join rules."""
    first: list[dict[str, Any]] = [{"type": "m.room.join_rules", "state_key": "", "content": rules}]
    return await pair.create(preset="private_chat", initial_state=first)


async def behind_space(pair: Pair, rule: str) -> tuple[str, str]:
    """A public space, and a room for those who are in it."""
    space = await pair.create(preset="public_chat", creation_content={"type": "m.space"})
    allow = [{"type": "m.room_membership", "room_id": space}]
    return space, await closed(pair, {"join_rule": rule, "allow": allow})
