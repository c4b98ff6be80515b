"""Requests between servers, made and signed here in the name of one of them."""

import asyncio
import itertools
import ssl
import time
from typing import Any

import aiohttp
from signedjson.sign import sign_json
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS
from synapse.crypto.event_signing import add_hashes_and_signatures
from synapse.events import make_event_from_dict
from yarl import URL

from ..accounts import Refused
from ..steps import until_answer
from .servers import Server
from .watcher import Json

# Where it does not matter what went before.
PLACE = {"depth": 9, "prev_events": ["$" + "A" * 43], "auth_events": ["$" + "B" * 43]}
counter = itertools.count()
# A transaction of ours may be in the way of the server's own. It then pauses, and says nothing of presence meanwhile.
transactions = asyncio.Lock()


async def ask(sender: Server | None, receiver: Server, method: str, path: str, body: Any = None) -> Json:
    """Makes a request, signed unless there is no sender; raises Refused unless it is a success."""
    trust = ssl.create_default_context(cafile=str(receiver.authority.file))
    headers = {"Authorization": authorization(sender, receiver, method, path, body)} if sender else {}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session,
        session.request(
            method, URL(f"https://{receiver.name}{path}", encoded=True), json=body, headers=headers, ssl=trust
        ) as response,
    ):
        answer = await response.json(content_type=None)
        if response.status >= 300:
            raise Refused(f"{method} {path}", response.status, answer or {})
        return answer


def authorization(sender: Server, receiver: Server, method: str, path: str, body: Any) -> str:
    """The header that proves who asks."""
    request = {"method": method, "uri": path, "origin": sender.name, "destination": receiver.name}
    if body is not None:
        request["content"] = body
    key: Any = sender.signing_key()
    signature = sign_json(request, sender.name, key)["signatures"][sender.name][f"ed25519:{key.version}"]
    return (
        f'X-Matrix origin="{sender.name}",destination="{receiver.name}",'
        f'key="ed25519:{key.version}",sig="{signature}"'
    )


async def tell(sender: Server, receiver: Server, kind: str, content: Json) -> None:
    """Sends something ephemeral; the caller holds `transactions` until the server itself is heard again."""
    edu = {"edu_type": kind, "content": content}
    body = {"origin": sender.name, "origin_server_ts": now(), "pdus": [], "edus": [edu]}
    path = f"/_matrix/federation/v1/send/interop-{now()}-{next(counter)}"

    async def taken() -> bool:
        try:
            await ask(sender, receiver, "PUT", path, body)
        except Refused as refused:
            # Synapse takes one transaction of a server at a time, and its own may be under way.
            if refused.status == 429:
                return False
            raise
        return True

    await until_answer(taken)


def signed_event(sender: Server, version: str, event: Json) -> tuple[str, Json]:
    """An event with hash and signature; gives its id too."""
    rules = KNOWN_ROOM_VERSIONS[version]
    event = PLACE | {"origin_server_ts": now()} | event
    add_hashes_and_signatures(rules, event, sender.name, sender.signing_key())
    return make_event_from_dict(event, rules).event_id, event


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)
