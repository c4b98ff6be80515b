"""Chapters: what neither server takes from the other, sent in the other's name."""

import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

from .pair import Pair
from .peer import ask, signed_event
from .person import Person, refused
from .watcher import Json, segment

FEDERATION = "/_matrix/federation/v1"
FOREIGN = "org.example.unknown"
# Since this version a room is named by the hash of its create event.
CREATE_NAMES_ROOM = 12


async def unknown_versions(pair: Pair) -> None:
    """Who does not know a room's version is told so at the door, and refuses to be invited."""
    room = await pair.create(preset="public_chat")
    for act in ("make_join", "make_knock"):
        path = f"{FEDERATION}/{act}/{segment(room)}/{segment(pair.guest.user_id)}"
        asked = f"{path}?{urlencode([('ver', FOREIGN), ('ver', '1')])}"
        refusal = await refused(ask(pair.away, pair.home, "GET", asked), 400)
        assert refusal["errcode"] == "M_INCOMPATIBLE_ROOM_VERSION", f"{act}: {refusal}"
        assert refusal["room_version"] == pair.version, f"{act}: {refusal}"
    refusal = await refused(invite(pair, *imagined(pair), version=FOREIGN), 400)
    # The specification's; Synapse has the one that is for clients, and gives its own what the other server says.
    by_chappe, by_synapse = "M_INCOMPATIBLE_ROOM_VERSION", "M_UNSUPPORTED_ROOM_VERSION"
    assert refusal["errcode"] == (by_chappe if pair.away.software == "chappe" else by_synapse), str(refusal)

    # Rooms of versions that only the host's server has.
    for version in await versions(pair.host) - await versions(pair.guest):
        strange = await pair.host.create(version, preset="public_chat")
        refusal = await refused(pair.guest.join(strange, pair.home), 400)
        assert refusal["errcode"] == "M_INCOMPATIBLE_ROOM_VERSION", str(refusal)
        refusal = await refused(pair.host.put("invite", strange, pair.guest), 400)
        passed_on = pair.kind == "chappe in a synapse room"
        assert refusal["errcode"] == (by_chappe if passed_on else by_synapse), str(refusal)


async def faulty_invites(pair: Pair) -> None:
    """What is no invite of the server's own user by the other's is not signed, and the user hears nothing."""
    room, told = imagined(pair)
    faults: dict[str, Json] = {
        "no membership": {"type": "m.room.message"},
        "another membership": {"content": {"membership": "join"}},
        "another server's sender": {"sender": f"@mallory:{pair.away.name}"},
        "another server's user": {"state_key": pair.host.user_id},
        "nobody": {"state_key": "nobody"},
        "another room": {"room_id": imagined(pair)[0]},
    }
    for fault, fields in faults.items():
        await not_taken(fault, invite(pair, room, told, fields))
    await not_taken("another event id", invite(pair, room, told, event_id="$" + "x" * 43))
    for forge in (unsigned, badly_signed):
        await not_taken(forge.__name__, invite(pair, room, told, forge=forge))
    await unheard(pair, faults["another room"]["room_id"])
    await unheard(pair, room)
    await invite(pair, room, told)
    await pair.guest.finds(room, "invite")


async def faulty_state(pair: Pair) -> None:
    """An invitation that does not tell of the room in the room's own events is refused."""
    (room, told), (_, foreign) = imagined(pair), imagined(pair)
    stripped = [{key: event[key] for key in ("type", "state_key", "sender", "content")} for event in told]
    for fault, state in {
        "nothing": [],
        "no create event": told[1:],
        "another room's create event": [foreign[0], told[1]],
        "another room's name": [told[0], foreign[1]],
        "stripped events": stripped,
        "no event": [*told, {"type": "m.room.topic"}],
    }.items():
        refusal = await not_taken(fault, invite(pair, room, state))
        assert refusal["errcode"] == "M_INVALID_PARAM", f"{fault}: {refusal}"
    await unheard(pair, room)
    await invite(pair, room, told)
    await pair.guest.finds(room, "invite")


async def invite(
    pair: Pair,
    room: str,
    told: list[Json],
    fields: Json | None = None,
    *,
    version: str = "",
    event_id: str = "",
    forge: Callable[[Json], Json] = lambda event: event,
) -> Json:
    """Asks the guest's server to sign an invite, in the name of the host's."""
    event = {
        "type": "m.room.member",
        "room_id": room,
        "sender": pair.host.user_id,
        "state_key": pair.guest.user_id,
        "content": {"membership": "invite"},
    }
    made, signed = signed_event(pair.home, pair.version, event | (fields or {}))
    body = {"room_version": version or pair.version, "event": forge(signed), "invite_room_state": told}
    path = f"/_matrix/federation/v2/invite/{segment(room)}/{segment(event_id or made)}"
    return await ask(pair.home, pair.away, "PUT", path, body)


def imagined(pair: Pair) -> tuple[str, list[Json]]:
    """A room of the host's that is nowhere: its id, create event and name."""
    content = {"room_version": pair.version, "nonce": secrets.token_hex(6)}
    create = {
        "type": "m.room.create",
        "state_key": "",
        "sender": pair.host.user_id,
        "content": content,
        "prev_events": [],
        "auth_events": [],
    }
    room = f"!{secrets.token_hex(9)}:{pair.home.name}"
    if int(pair.version) >= CREATE_NAMES_ROOM:
        event_id, create = signed_event(pair.home, pair.version, create)
        room = "!" + event_id[1:]
    else:
        _, create = signed_event(pair.home, pair.version, create | {"room_id": room})
    name = {"type": "m.room.name", "state_key": "", "sender": pair.host.user_id, "room_id": room}
    _, name = signed_event(pair.home, pair.version, name | {"content": {"name": "Nowhere"}})
    return room, [create, name]


async def unheard(pair: Pair, room: str) -> None:
    """The guest knows nothing of a room."""
    await pair.guest.sync()
    assert room not in pair.guest.section, "a faulty invite has arrived"


async def versions(person: Person) -> set[str]:
    """The room versions that somebody's server knows."""
    capabilities = (await person.account.call("GET", "/capabilities"))["capabilities"]
    return set(capabilities["m.room_versions"]["available"])


def unsigned(event: Json) -> Json:
    """Without signatures."""
    return event | {"signatures": {}}


def badly_signed(event: Json) -> Json:
    """With something else in it than was signed."""
    return event | {"depth": event["depth"] + 1}


async def not_taken(fault: str, request: Awaitable[Json]) -> Json:
    """The request must be answered with 400 or 403: servers differ."""
    try:
        return await refused(request, 400, 403)
    except AssertionError as error:
        raise AssertionError(f"{fault}: {error}") from error
