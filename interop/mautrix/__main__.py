"""A bridge written with mautrix and a person at matrix-nio, end-to-end encrypted, on Chappe.

python -m interop.mautrix [--keep FOLDER]
CHAPPE_BIN names the binary.
"""

import asyncio
import logging
from pathlib import Path

from nio import RoomResolveAliasResponse

from ..accounts import sign_up
from ..nio.agent import Agent, good
from ..steps import Steps, arguments, conclude, until, work_folder
from ..synapse.authority import Authority
from ..synapse.servers import START_LIMIT
from .bridge import Bridge
from .server import BridgedChappe

WHOLE_LIMIT = 300.0


async def talk(folder: Path) -> None:
    """The whole path, from the first ping to a restart of each side."""
    for library in ("mau", "nio"):
        logging.getLogger(library).setLevel(logging.ERROR)
    server = BridgedChappe(folder, Authority(folder))
    server.configure([server])
    steps = Steps("mautrix")
    bridge = Bridge(server, folder)
    try:
        await steps.run("start", server.start(), START_LIMIT)
        account = await sign_up(server.base, "camille", server.registration)
        camille = Agent(account, str(folder))
        try:
            await conversation(steps, server, bridge, camille)
        finally:
            await camille.stop()
            await bridge.stop()
        await steps.run("stop", server.stop())
    finally:
        server.kill()


async def conversation(steps: Steps, server: BridgedChappe, bridge: Bridge, camille: Agent) -> None:
    """Everything between the start and the end."""
    await steps.run("the bridge makes its device and uploads its keys", bridge.start())
    await steps.run("ping", bridge.ping())
    await steps.run("first sync with encryption", camille.start())
    room = await steps.run("an encrypted room, the bot invited", camille.create_encrypted(bridge.user_id))
    await steps.run("the bot joins", until(lambda: room in bridge.joined))
    await steps.run("the bot's device is known", camille.knows_devices_of(bridge.user_id, room))
    await steps.run("a message each way, decrypted", both_ways(bridge, camille, room))
    await steps.run("typing and receipts", fleeting(bridge, camille, room))
    await steps.run("what was said while the bridge was away", absence(bridge, camille, room))
    await steps.run("what was said before the server went down", restart(server, bridge, camille, room))
    await steps.run("an alias that the bridge makes when it is looked for", alias(bridge, camille))
    await steps.run("a ghost that the bridge makes when it is invited", ghost(bridge, camille, room))


async def hear(bridge: Bridge, camille: Agent, room: str, body: str) -> str:
    """Camille says something and the bot reads it."""
    event_id = await camille.send(room, {"msgtype": "m.text", "body": body})
    heard = await bridge.hears(event_id)
    assert heard == body, f"sent {body!r}, decrypted {heard!r}"
    return event_id


async def answer(bridge: Bridge, camille: Agent, room: str, body: str) -> str:
    """The bot says something and Camille reads it."""
    event_id = await bridge.say(room, body, camille.account.user_id)
    event = await camille.receive(event_id)
    assert event.body == body, f"sent {body!r}, received {event.body!r}"
    assert event.sender == bridge.user_id
    return event_id


async def both_ways(bridge: Bridge, camille: Agent, room: str) -> None:
    """A few messages in each direction."""
    await hear(bridge, camille, room, "Bonjour le pont.")
    await answer(bridge, camille, room, "Bonjour, ici le pont. 🌉")
    await hear(bridge, camille, room, "Et encore un.")
    await answer(bridge, camille, room, "Bien reçu.")


async def fleeting(bridge: Bridge, camille: Agent, room: str) -> None:
    """What is not an event reaches the bridge too."""
    event_id = await answer(bridge, camille, room, "Lu ?")
    user_id = camille.account.user_id
    for is_typing in (True, False):
        good(await camille.client.room_typing(room, is_typing))
        await until(lambda: (user_id in bridge.typing.get(room, [])) == is_typing)
    good(await camille.client.update_receipt_marker(room, event_id))
    await until(lambda: (event_id, user_id) in bridge.read)


async def absence(bridge: Bridge, camille: Agent, room: str) -> None:
    """What was said meanwhile comes afterwards, in order, each once."""
    await bridge.go_away()
    said = [await camille.send(room, {"msgtype": "m.text", "body": str(n)}) for n in range(5)]
    await bridge.come_back()
    for event_id in said:
        await bridge.hears(event_id)
    order = [event_id for event_id in bridge.order if event_id in said]
    assert order == said, "messages came in another order, or twice"


async def restart(server: BridgedChappe, bridge: Bridge, camille: Agent, room: str) -> None:
    """The server goes down with something still to be told."""
    await bridge.go_away()
    said = await camille.send(room, {"msgtype": "m.text", "body": "gardé"})
    await server.stop()
    await bridge.come_back()
    await server.start()
    assert await bridge.hears(said) == "gardé"
    assert bridge.order.count(said) == 1
    await answer(bridge, camille, room, "Rien de perdu.")


async def alias(bridge: Bridge, camille: Agent) -> None:
    """A room that is made because somebody looks for it."""
    name = f"#bridge_salon:{bridge.server.name}"
    found = good(await camille.client.room_resolve_alias(name))
    assert isinstance(found, RoomResolveAliasResponse) and name in bridge.asked
    good(await camille.client.room_resolve_alias(name))
    assert bridge.asked.count(name) == 1, "asked though it was there"


async def ghost(bridge: Bridge, camille: Agent, room: str) -> None:
    """A user who is made because somebody invites them, and who acts through the bridge."""
    user_id = f"@bridge_dominique:{bridge.server.name}"
    good(await camille.client.room_invite(room, user_id))
    assert user_id in bridge.asked
    await bridge.service.intent.user(user_id).ensure_joined(room)
    await until(lambda: user_id in camille.client.rooms[room].users)


async def main() -> None:
    """Starts a server and a bridge and lets them talk."""
    options = arguments(__doc__).parse_args()
    async with asyncio.timeout(WHOLE_LIMIT):
        with work_folder("mautrix", options.keep) as folder:
            await talk(folder)
    print("mautrix: all steps held")


if __name__ == "__main__":
    conclude(main())
