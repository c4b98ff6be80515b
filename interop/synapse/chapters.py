"""The table of chapters, and the room versions in which each is told."""

from collections.abc import Awaitable, Callable, Container, Mapping
from dataclasses import dataclass, field

from . import addresses, devices, doors, faults, finding, media, people, power, talking, upgrades
from .pair import Pair

VERSIONS = range(1, 13)
# One of each form of ids, redactions and state resolution: for what does not hang on more than that.
FORMS = (1, 2, 3, 4, 11, 12)
# For what does not hang on the version.
ANY = (11,)

Tell = Callable[[Pair], Awaitable[None]]


@dataclass(frozen=True)
class Chapter:
    """What two servers must manage together."""

    name: str
    tell: Tell
    versions: Container[int] = VERSIONS
    cannot: Mapping[str, str] = field(default_factory=dict)
    """The kind of pair that cannot, and why."""


def once(name: str, tell: Tell, cannot: Mapping[str, str] | None = None) -> Chapter:
    """A chapter that does not hang on the version."""
    return Chapter(name, tell, ANY, cannot or {})


# Those in which redaction takes out of the power levels who may invite.
INVITE_TAKEN = range(1, 11)
KNOCK = range(7, 13)
RESTRICTED = range(8, 13)
KNOCK_RESTRICTED = range(10, 13)
CREATORS = range(12, 13)

KNOCK_WITHDRAWN = {"synapse in a chappe room": "Synapse takes its user's knock back at home alone"}
READ_ON = {
    "synapse in a chappe room": "Synapse sorts the event before the date behind it, and leaves it out",
}
KNOCK_REFUSED = {
    "synapse in a chappe room": "Synapse takes news of rooms that it is not in for its invited users alone",
    "chappe in a synapse room": "Synapse sends news of a room to servers in it and those of invited users",
}

ONE_STREAM = {"synapse in a synapse room": "Synapse believes an update only if it has heard of the last one"}
NO_SERVICE = {"synapse in a synapse room": "Synapse is no identity service"}
STATE_TAKEN = {
    "synapse in a chappe room": "Synapse only logs it, until June 2027 as its source says",
    "synapse in a synapse room": "Synapse only logs it, until June 2027 as its source says",
}

CHAPTERS = [
    Chapter("join by alias, with the history", talking.join_by_alias),
    Chapter("messages", talking.messages, FORMS),
    Chapter("redactions", talking.redactions),
    Chapter("redaction by a moderator", talking.moderation),
    Chapter("redacted state", talking.redacted_state),
    Chapter("edits, reactions, threads, and their redaction", talking.edits, FORMS),
    once("jump to a date", talking.jump_to_date),
    once("read on from a date", talking.around_date, READ_ON),
    Chapter("state and power", power.states),
    once("state of one's own", power.owned_state),
    Chapter("redacted power levels", power.redacted_levels, INVITE_TAKEN),
    once("server ACL", power.server_acl),
    once("redacted server ACL", power.lasting_state),
    Chapter("kick", doors.kick),
    Chapter("invite", doors.invite),
    Chapter("invite turned down", doors.refuse),
    Chapter("invite withdrawn", doors.withdraw_invite),
    once("invite that is none", faults.faulty_invites),
    Chapter("invite without the room's events", faults.faulty_state, CREATORS, STATE_TAKEN),
    Chapter("invite of an address", addresses.invite_address, FORMS, NO_SERVICE),
    once("invite of an address withdrawn", addresses.withdrawn_address, NO_SERVICE),
    once("invite of an address redacted", addresses.redacted_address, NO_SERVICE),
    Chapter("ban", doors.ban),
    Chapter("invite after a ban", doors.invite_after_ban, FORMS),
    Chapter("leave", doors.leave, FORMS),
    Chapter("come back through the other server", doors.come_back, FORMS),
    Chapter("knock", doors.knock, KNOCK),
    Chapter("knock turned down", doors.refuse_knock, KNOCK),
    Chapter("knock withdrawn", doors.withdraw_knock, KNOCK, KNOCK_WITHDRAWN),
    Chapter("told that a knock is turned down", doors.told_of_refused_knock, KNOCK, KNOCK_REFUSED),
    Chapter("restricted join", doors.restricted, RESTRICTED),
    Chapter("knock or restricted join", doors.knock_restricted, KNOCK_RESTRICTED),
    Chapter("upgrade to the next version", upgrades.to_next, range(1, 12)),
    Chapter("upgrade to version 12", upgrades.to_newest),
    Chapter("upgrade by the guest", upgrades.by_guest, FORMS),
    Chapter("creators of both servers", upgrades.creators, CREATORS),
    Chapter("trusted private chat", upgrades.trusted, CREATORS),
    Chapter("space of both servers' rooms", finding.spaces, FORMS),
    Chapter("restricted room in a space", finding.restricted_in_space, RESTRICTED),
    Chapter("summary of a room", finding.summary, FORMS),
    once("versions that the other does not know", faults.unknown_versions),
    once("public rooms", finding.public_rooms),
    once("display names", people.profiles),
    once("other profile fields", people.profile_fields),
    once("presence", people.presence),
    once("typing", people.typing),
    once("receipts", people.receipts),
    once("device lists", devices.device_lists),
    once("missed update of devices", devices.missed_update, ONE_STREAM),
    once("messages to devices", devices.to_device),
    once("one-time keys", devices.one_time_keys),
    once("cross-signing keys", devices.cross_signing),
    once("OpenID", addresses.openid, NO_SERVICE),
    once("media", media.download),
    once("thumbnails", media.thumbnails),
]


def table() -> str:
    """The chapters as they stand in docs/interoperation.md."""
    lines = ["| chapter | room versions | what is told |", "|---|---|---|"]
    for chapter in CHAPTERS:
        told = [version for version in VERSIONS if version in chapter.versions]
        through = (
            f"{told[0]} to {told[-1]}" if len(told) == told[-1] - told[0] + 1 else ", ".join(map(str, told))
        )
        versions = "any" if chapter.versions is ANY else str(told[0]) if len(told) == 1 else through
        lines.append(f"| {chapter.name} | {versions} | {chapter.tell.__doc__} |")
    return "\n".join(lines)
