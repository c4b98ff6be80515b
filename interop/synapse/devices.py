"""Chapters: devices, their keys, and messages to them."""

import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

from signedjson.key import encode_verify_key_base64, generate_signing_key, get_verify_key
from signedjson.sign import sign_json

from ..accounts import Account, log_in
from ..steps import until_answer
from .pair import Pair
from .peer import ask, tell, transactions
from .person import Person
from .watcher import Json, segment

# A number that no stream of a test reaches.
BEYOND = 1_000_000_000


async def device_lists(pair: Pair) -> None:
    """A new device is seen by the other, and so is that it is gone."""
    for owner, other in await met(pair):
        account = await log_in(owner.account.base, owner.user_id, owner.account.password)
        keys = await upload_keys(account)
        shown = partial(device_of, account)
        seen = await learns(other, owner, shown)
        assert seen["keys"] == keys["keys"], f"the other sees {seen}"
        await account.call("POST", "/logout", {})
        await learns(other, owner, lambda seen, shown=shown: not shown(seen))


async def missed_update(pair: Pair) -> None:
    """What another server says of a device is believed, until a change follows one that never came."""
    for owner, other in await met(pair):
        async with transactions:
            await made_up_updates(owner, other)


async def made_up_updates(owner: Person, other: Person) -> None:
    """An update that follows the last one and one that does not, neither of them the owner's."""
    account = await log_in(owner.account.base, owner.user_id, owner.account.password)
    await upload_keys(account)
    await learns(other, owner, partial(device_of, account))
    path = f"/_matrix/federation/v1/user/devices/{segment(owner.user_id)}"
    last = (await ask(other.server, owner.server, "GET", path))["stream_id"]
    updates = [("NEXT", [last], last + 1), ("MISSED", [BEYOND], BEYOND + 1)]
    # In the one stream of all users of a Synapse it cannot be told from outside what the last update was.
    for name, before, number in updates[owner.server.software == "synapse" :]:
        update = {
            "user_id": owner.user_id,
            "device_id": name,
            "stream_id": number,
            "prev_id": before,
            "keys": device_keys(owner.user_id, name),
        }
        await tell(owner.server, other.server, "m.device_list_update", update)
        believed = name == "NEXT"
        await learns(other, owner, lambda seen, believed=believed: has_next(seen, owner.user_id) == believed)
    seen = (await query(other, owner))["device_keys"][owner.user_id]
    assert account.device_id in seen and "MISSED" not in seen, f"the other sees {seen}"
    await account.call("POST", "/logout", {})
    await learns(other, owner, lambda seen: not device_of(account, seen))


async def to_device(pair: Pair) -> None:
    """A message for one device and one for all of them, each once."""
    for sender, receiver in pair.both():
        word = secrets.token_hex(6)
        own = receiver.account.device_id
        for device in (own, "*"):
            note = {"word": word, "for": device}
            await sender.to_devices("org.example.note", {receiver.user_id: {device: note}})
        while len(notes(receiver, sender, word)) < 2:
            await receiver.sync()
        await receiver.sync()
        assert notes(receiver, sender, word) == [own, "*"], f"received: {receiver.to_device}"


async def one_time_keys(pair: Pair) -> None:
    """A key can be claimed once; then the fallback key is given."""
    for owner, other in pair.both():
        await upload_keys(owner.account)
        keys = {f"curve25519:{name}": secrets.token_hex(16) for name in ("once", "fallback")}
        one, fallback = ({name: key} for name, key in keys.items())
        await owner.account.call("POST", "/keys/upload", {"one_time_keys": one, "fallback_keys": fallback})
        device = owner.account.device_id
        for wanted in (one, fallback):
            body = {"one_time_keys": {owner.user_id: {device: "curve25519"}}}
            claimed = (await other.account.call("POST", "/keys/claim", body))["one_time_keys"]
            assert claimed[owner.user_id][device] == wanted, f"claimed was {claimed}"


async def cross_signing(pair: Pair) -> None:
    """The other sees master and self-signing key, and what they sign."""
    for owner, other in await met(pair):
        device = await upload_keys(owner.account)
        master, own = generate_signing_key("x"), generate_signing_key("x")
        keys = {
            "master": cross_key(owner.user_id, "master", master),
            "self_signing": cross_key(owner.user_id, "self_signing", own, master),
        }
        identifier = {"type": "m.id.user", "user": owner.user_id}
        password = {"type": "m.login.password", "password": owner.account.password, "identifier": identifier}
        body = {f"{kind}_key": key for kind, key in keys.items()} | {"auth": password}
        await owner.account.call("POST", "/keys/device_signing/upload", body)
        public_keys = {kind: key["keys"] for kind, key in keys.items()}
        await learns(other, owner, partial(shows, owner.user_id, public_keys))
        del device["signatures"]
        signed = {owner.account.device_id: sign_json(device, owner.user_id, named(own))}
        await owner.account.call("POST", "/keys/signatures/upload", {owner.user_id: signed})
        await learns(other, owner, partial(is_signed, owner.account, f"ed25519:{public(own)}"))


def has_next(seen: Json, user_id: str) -> bool:
    """Whether the device that was made up is in the answer."""
    return "NEXT" in seen["device_keys"].get(user_id, {})


def device_of(account: Account, seen: Json) -> Json | None:
    """A device, in an answer to a question for keys."""
    return seen["device_keys"].get(account.user_id, {}).get(account.device_id)


def shows(user_id: str, keys: dict[str, Json], seen: Json) -> bool:
    """Whether these cross-signing keys are in the answer."""
    found = {kind: seen.get(f"{kind}_keys", {}).get(user_id, {}).get("keys") for kind in keys}
    return found == keys


def is_signed(account: Account, key: str, seen: Json) -> bool:
    """Whether the device has a signature of this key in the answer."""
    device = device_of(account, seen) or {}
    return key in device.get("signatures", {}).get(account.user_id, {})


def notes(receiver: Person, sender: Person, word: str) -> list[str]:
    """For which devices the notes with this word were that came."""
    contents = [event["content"] for event in receiver.to_device if event["sender"] == sender.user_id]
    return [content["for"] for content in contents if content.get("word") == word]


async def met(pair: Pair) -> list[tuple[Person, Person]]:
    """Owner and other, each in turn, who share a room and have asked for each other's keys, as clients do."""
    await pair.share()
    for owner, other in pair.both():
        # The first sync tells nobody's changes.
        await other.sync()
        await query(other, owner)
    return pair.both()


async def learns(other: Person, owner: Person, look: Callable[[Json], Any]) -> Any:
    """Asks for keys whenever they are said to have changed, as clients do, until `look` finds something."""
    while True:
        await other.until(lambda: owner.user_id in other.devices_changed)
        other.devices_changed.discard(owner.user_id)
        if found := look(await query(other, owner)):
            return found


async def query(asking: Person, owner: Person) -> Json:
    """Asks for somebody's keys until their server answers: it may be waited for after a transaction of ours was in its way."""

    async def answered() -> Json | None:
        body = {"device_keys": {owner.user_id: []}}
        keys = await asking.account.call("POST", "/keys/query", body)
        return keys if not keys.get("failures") and "device_keys" in keys else None

    return await until_answer(answered)


async def upload_keys(account: Account) -> Json:
    """Uploads a device's keys; gives them."""
    device = device_keys(account.user_id, account.device_id)
    await account.call("POST", "/keys/upload", {"device_keys": device})
    return device


def device_keys(user_id: str, device_id: str) -> Json:
    """New keys of a device, signed by itself."""
    key = generate_signing_key(device_id)
    keys = {
        f"curve25519:{device_id}": public(generate_signing_key("x")),
        f"ed25519:{device_id}": public(key),
    }
    device: Json = {
        "user_id": user_id,
        "device_id": device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": keys,
    }
    return sign_json(device, user_id, key)


def cross_key(user_id: str, usage: str, key: object, signer: object = None) -> Json:
    """A cross-signing key, signed by the master key unless it is one."""
    made: Json = {"user_id": user_id, "usage": [usage], "keys": {f"ed25519:{public(key)}": public(key)}}
    return sign_json(made, user_id, named(signer)) if signer else made


def public(key: object) -> str:
    """The public half, in base64."""
    return encode_verify_key_base64(get_verify_key(key))


def named(key: object) -> object:
    """The key under the name that signatures give it: its public half."""
    key.version = public(key)  # type: ignore[attr-defined]
    return key
