"""Two agents talk, end-to-end encrypted, through matrix-nio.

python -m interop.nio BASE_URL [BASE_URL_OF_THE_SECOND] [--registration dummy|token:T|secret:S]
"""

import argparse
import asyncio
import logging
import secrets
import tempfile

from ..accounts import Account, Refused, sign_up
from ..steps import Steps, conclude, until
from .agent import Agent, good


async def talk(label: str, first: Account, second: Account) -> None:
    """The whole path, from an invitation to logging out."""
    steps = Steps(label)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        camille, dominique = Agent(first, one), Agent(second, two)
        try:
            await conversation(steps, camille, dominique)
            await steps.run("log out", log_out(camille, dominique))
        finally:
            await camille.stop()
            await dominique.stop()


async def conversation(steps: Steps, camille: Agent, dominique: Agent) -> None:
    """Everything between the first sync and logging out."""
    await steps.run("first sync with encryption", start(camille, dominique))
    room = await steps.run(
        "create an encrypted room and invite", camille.create_encrypted(dominique.account.user_id)
    )
    await steps.run("accept the invitation", dominique.accept(room))
    await steps.run("learn each other's devices", devices(camille, dominique, room))
    await steps.run("a message each way, decrypted", both_ways(camille, dominique, room))
    await steps.run("an encrypted file", send_file(camille, dominique, room))
    last = await steps.run("ten messages in a row, in order", several(camille, dominique, room))
    await steps.run("typing is seen", typing(dominique, camille, room))
    await steps.run("the receipt is seen", receipt(dominique, camille, room, last))


async def start(*agents: Agent) -> None:
    """Starts them one after the other."""
    for agent in agents:
        await agent.start()


async def devices(camille: Agent, dominique: Agent, room: str) -> None:
    """Each must know the other's devices before encrypting."""
    await camille.knows_devices_of(dominique.account.user_id, room)
    await dominique.knows_devices_of(camille.account.user_id, room)


async def say(sender: Agent, receiver: Agent, room: str, body: str) -> str:
    """Sends a text and checks what the other reads."""
    event_id = await sender.send(room, {"msgtype": "m.text", "body": body})
    event = await receiver.receive(event_id)
    assert event.body == body, f"sent {body!r}, received {event.body!r}"
    assert event.sender == sender.account.user_id
    return event_id


async def both_ways(camille: Agent, dominique: Agent, room: str) -> None:
    """One message in each direction."""
    await say(camille, dominique, room, "Bonjour, ici le premier ministère.")
    await say(dominique, camille, room, "Bien reçu, ici le second. 🗼")


async def several(sender: Agent, receiver: Agent, room: str) -> str:
    """Ten messages sent without waiting; they must come in the order sent."""
    sent = [await sender.send(room, {"msgtype": "m.text", "body": str(n)}) for n in range(10)]
    for event_id in sent:
        await receiver.receive(event_id)
    order = [event_id for event_id in receiver.events if event_id in sent]
    assert order == sent, "messages came in another order"
    return sent[-1]


async def send_file(sender: Agent, receiver: Agent, room: str) -> None:
    """Sends 100 kB and compares what arrives."""
    data = secrets.token_bytes(100_000)
    event_id = await sender.send(room, await sender.upload(data, "note.bin"))
    event = await receiver.receive(event_id)
    file = event.source["content"]["file"]
    assert await receiver.fetch(file) == data, "the file came back different"


async def typing(writer: Agent, watcher: Agent, room: str) -> None:
    """Typing begins and ends, and the other sees both."""
    for is_typing in (True, False):
        good(await writer.client.room_typing(room, is_typing))
        user_id = writer.account.user_id
        await until(lambda: (user_id in watcher.typing.get(room, [])) == is_typing)


async def receipt(reader: Agent, writer: Agent, room: str, event_id: str) -> None:
    """The reader reads, the writer sees it."""
    good(await reader.client.update_receipt_marker(room, event_id))
    await until(lambda: (event_id, reader.account.user_id) in writer.receipts)


async def log_out(*agents: Agent) -> None:
    """Afterwards the token is worth nothing."""
    for agent in agents:
        if agent.syncing is not None:
            agent.syncing.cancel()
        good(await agent.client.logout())
        try:
            await agent.account.call("GET", "/account/whoami")
        except Refused as refused:
            assert refused.answer.get("errcode") == "M_UNKNOWN_TOKEN", str(refused)
        else:
            raise AssertionError("the token still works")


async def introduce(label: str, first: str, second: str, registration: str) -> None:
    """Makes an account on each server and lets the two talk."""
    logging.getLogger("nio").setLevel(logging.ERROR)
    accounts = asyncio.gather(
        sign_up(first, "camille", registration), sign_up(second, "dominique", registration)
    )
    await talk(label, *await Steps(label).run("sign up and log in", accounts))


async def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bases", nargs="+", metavar="BASE_URL")
    parser.add_argument("--registration", default="dummy")
    options = parser.parse_args()
    async with asyncio.timeout(240):
        await introduce("nio", options.bases[0], options.bases[-1], options.registration)
    print("nio: all steps held")


if __name__ == "__main__":
    conclude(main())
