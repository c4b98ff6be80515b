"""Chapters: invitations of e-mail addresses by Chappe's identity service, and who vouches for users there."""

import re
import secrets
from collections.abc import Awaitable, Callable

from ..accounts import call
from .pair import Pair
from .peer import ask
from .person import Person, refused
from .servers import Chappe
from .watcher import Json, segment

V2 = "/_matrix/identity/v2"
PROOF = re.compile(r"/confirm_email\?\S*\btoken=([^&\s]+)")


async def invite_address(pair: Pair) -> None:
    """An address is invited, and the invitation finds its user once it is bound; then it is looked up."""
    service, address = service_of(pair), f"{secrets.token_hex(6)}@example.org"
    room = await pair.create(preset="private_chat", name="Story")
    elsewhere = await pair.create(preset="private_chat")
    wanted = await named(pair.host, service) | {"medium": "email", "address": address}
    await pair.host.account.call("POST", f"/rooms/{segment(room)}/invite", wanted)
    mail = await service.mailbox.take(address)
    assert "Story" in mail, f"the mail says {mail}"
    asked = await pair.host.event(room, lambda event: event["type"] == "m.room.third_party_invite")
    assert address not in str(asked), f"the room learns the address: {asked}"
    await refused(pair.guest.join(room, pair.home))

    await bind(pair.guest, service, address)
    await pair.guest.finds(room, "invite")
    event = await pair.host.membership(room, pair.guest.user_id, "invite")
    signed = event["content"]["third_party_invite"]["signed"]
    assert signed["mxid"] == pair.guest.user_id, f"signed was {signed}"
    assert signed["token"] == asked["state_key"], f"signed was {signed}"
    await pair.enter(room)
    await pair.host.message(room, await pair.guest.say(room, "that is me"), "that is me")

    await pair.host.account.call("POST", f"/rooms/{segment(elsewhere)}/invite", wanted)
    await pair.guest.finds(elsewhere, "invite")


async def withdrawn_address(pair: Pair) -> None:
    """An invitation of an address that was taken back finds nobody."""

    async def empty(room: str, asked: Json) -> None:
        await pair.host.set_state(room, asked["type"], {}, asked["state_key"])

    await finds_nobody(pair, empty)


async def redacted_address(pair: Pair) -> None:
    """An invitation of an address that was redacted finds nobody either."""

    async def redact(room: str, asked: Json) -> None:
        await pair.host.redact(room, asked["event_id"])

    await finds_nobody(pair, redact)


async def finds_nobody(pair: Pair, undo: Callable[[str, Json], Awaitable[None]]) -> None:
    """Two invitations of an address, of which one was undone: the user comes into the other room alone."""
    service, address = service_of(pair), f"{secrets.token_hex(6)}@example.org"
    rooms = [await pair.create(preset="private_chat") for _ in range(2)]
    wanted = await named(pair.host, service) | {"medium": "email", "address": address}
    for room in rooms:
        await pair.host.account.call("POST", f"/rooms/{segment(room)}/invite", wanted)
    asked = await pair.host.event(rooms[0], lambda event: event["type"] == "m.room.third_party_invite")
    await undo(rooms[0], asked)
    await bind(pair.guest, service, address)
    await pair.guest.finds(rooms[1], "invite")
    await pair.guest.sync()
    assert rooms[0] not in pair.guest.section, "an invitation that was taken back has arrived"
    await refused(pair.guest.join(rooms[0], pair.home))


async def openid(pair: Pair) -> None:
    """Each server vouches for its own user to whoever asks, and to the identity service of Chappe."""
    service = service_of(pair)
    path = "/_matrix/federation/v1/openid/userinfo?access_token="
    for person, _ in pair.both():
        token = await openid_token(person)
        assert token["matrix_server_name"] == person.server.name, f"the token is {token}"
        told = await ask(None, person.server, "GET", path + token["access_token"])
        assert told == {"sub": person.user_id}, f"told was {told}"
        refusal = await refused(ask(None, person.server, "GET", path + "made-up"), 401)
        assert refusal["errcode"] == "M_UNKNOWN_TOKEN", str(refusal)
        identity = (await named(person, service))["id_access_token"]
        account = await call(service.base, "GET", f"{V2}/account", token=identity)
        assert account["user_id"] == person.user_id, f"the identity service takes the user for {account}"
        forged = token | {"access_token": "made-up"}
        await refused(call(service.base, "POST", f"{V2}/account/register", forged), 401)


def service_of(pair: Pair) -> Chappe:
    """The identity service: the first one."""
    return next(server for server in (pair.home, pair.away) if isinstance(server, Chappe))


async def openid_token(person: Person) -> Json:
    """What proves to others who somebody is."""
    path = f"/user/{segment(person.user_id)}/openid/request_token"
    return await person.account.call("POST", path, {})


async def named(person: Person, service: Chappe) -> Json:
    """How somebody names the identity service to the own homeserver, with a token for it."""
    answer = await call(service.base, "POST", f"{V2}/account/register", await openid_token(person))
    return {"id_server": service.name, "id_access_token": answer["token"]}


async def bind(person: Person, service: Chappe, address: str) -> None:
    """Proves to have the address, and has the own homeserver bind it."""
    name, secret = await named(person, service), secrets.token_hex(12)
    wanted = {"client_secret": secret, "email": address, "send_attempt": 1}
    path, token = f"{V2}/validate/email/requestToken", name["id_access_token"]
    sid = (await call(service.base, "POST", path, wanted, token))["sid"]
    found = None
    # There may be mails of invitations before it.
    while not found:
        found = PROOF.search(await service.mailbox.take(address))
    proof = {"sid": sid, "client_secret": secret, "token": found.group(1)}
    await call(service.base, "POST", f"{V2}/validate/email/submitToken", proof)
    await person.account.call("POST", "/account/3pid/bind", name | {"sid": sid, "client_secret": secret})
