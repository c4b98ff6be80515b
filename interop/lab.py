"""The lab of deploy/lab/run: it starts, agents sign up by mail at both ministries and talk, Ctrl-C leaves nothing.

python -m interop.lab
CHAPPE_BIN names the binary.
"""

import asyncio
import codecs
import os
import re
import signal
import socket
import tempfile
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp

from .accounts import REGISTER, Account, Refused, call
from .steps import Steps, conclude, until, until_answer

RUN = Path(__file__).parent.parent / "deploy" / "lab" / "run"
# To the end of its line: more of it may be still to come.
LINK = re.compile(r"^http://\S+/confirm_email\?\S+(?=\n)", re.MULTILINE)
WHOLE_LIMIT = 180.0
MINISTRIES = ["interieur", "justice"]


class Lab:
    """The running script, in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ports = free_ports(5)
        self.clients, self.servers = ports[0:2], ports[2:4]
        self.ports = {
            "CLIENT_PORTS": " ".join(map(str, self.clients)),
            "FEDERATION_PORTS": " ".join(map(str, self.servers)),
            "MAIL_PORT": str(ports[4]),
        }
        self.output = ""

    async def start(self) -> None:
        """Starts the script and reads on until it says that all is up."""
        self.process = await asyncio.create_subprocess_exec(
            RUN,
            self.folder,
            env=os.environ | self.ports,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            # Whoever is started in the background ignores it, and a script that ignores it cannot trap it.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        self.reading = asyncio.create_task(self.read())
        await until(lambda: "The lab is up" in self.output or self.process.returncode is not None)
        assert self.process.returncode is None, self.output

    async def read(self) -> None:
        """Collects what the script and the mail sink print."""
        # Characters may lie across two reads.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while chunk := await self.process.stdout.read(4096):
            self.output += decoder.decode(chunk)

    async def stop(self) -> None:
        """Does what Ctrl-C does and looks whether anything of the lab is left."""
        os.killpg(self.process.pid, signal.SIGINT)
        await self.reading
        assert await self.process.wait() == 130, self.output
        assert "The lab has stopped" in self.output, self.output
        await until(lambda: not alive(self.process.pid))
        for port in [*self.clients, *self.servers]:
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", port)) != 0, f"something still listens on {port}"

    def kill(self) -> None:
        """Ends what is left, if anything."""
        if alive(self.process.pid):
            os.killpg(self.process.pid, signal.SIGKILL)


def alive(group: int) -> bool:
    """Whether a process group has any process."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses at this moment."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


async def sign_up(lab: Lab, ministry: int, name: str) -> Account:
    """Registers with an address of the ministry; the link comes by mail."""
    base = f"http://127.0.0.1:{lab.clients[ministry]}"
    address = f"{name}@{MINISTRIES[ministry]}.example"
    secret, password, mails = "a-secret-of-the-client", "correct horse battery", len(lab.output)
    wanted = {"client_secret": secret, "email": address, "send_attempt": 1}
    sid = (await call(base, "POST", f"{REGISTER}/email/requestToken", wanted))["sid"]
    mail = await until(lambda: LINK.search(lab.output, mails))
    link = urlsplit(mail.group())
    form = {key: values[0] for key, values in parse_qs(link.query).items()}
    async with aiohttp.ClientSession() as session, session.post(base + link.path, data=form) as page:
        assert page.status == 200, await page.text()
    body = {"password": password}
    try:
        await call(base, "POST", REGISTER, body)
    except Refused as refused:
        creds = {"sid": sid, "client_secret": secret}
        kind = "m.login.email.identity"
        body["auth"] = {"type": kind, "session": refused.answer["session"], "threepid_creds": creds}
    made = await call(base, "POST", REGISTER, body)
    return Account(base, made["user_id"], password, made["device_id"], made["access_token"])


async def denied(lab: Lab) -> None:
    """An address of the other ministry is refused."""
    base = f"http://127.0.0.1:{lab.clients[0]}"
    wanted = {"client_secret": "x", "email": "paul@justice.example", "send_attempt": 1}
    try:
        await call(base, "POST", f"{REGISTER}/email/requestToken", wanted)
    except Refused as refused:
        assert refused.answer["errcode"] == "M_THREEPID_DENIED", refused.answer
    else:
        raise AssertionError("an address of another ministry was taken")


async def say(account: Account, room: str, text: str) -> str:
    """Sends a text message."""
    content = {"msgtype": "m.text", "body": text}
    return (await account.call("PUT", f"/rooms/{room}/send/m.room.message/{text}", content))["event_id"]


async def hears(account: Account, room: str, event: str) -> None:
    """Waits until an event has arrived at an account's server."""

    async def ask() -> bool:
        page = await account.call("GET", f"/rooms/{room}/messages", dir="b", limit="20")
        return any(found["event_id"] == event for found in page["chunk"])

    await until_answer(ask)


async def invited(account: Account, room: str) -> None:
    """Waits for an invite and takes it."""

    async def ask() -> bool:
        answer = await account.call("GET", "/sync", timeout="0")
        return room in answer.get("rooms", {}).get("invite", {})

    await until_answer(ask)
    await account.call("POST", f"/join/{room}", {})


async def walk(lab: Lab) -> None:
    """The whole story."""
    steps = Steps("lab")
    await steps.run("start", lab.start(), 90)
    try:
        await steps.run("another ministry's address is refused", denied(lab))
        jeanne = await steps.run("sign up at intérieur", sign_up(lab, 0, "jeanne.martin"))
        paul = await steps.run("sign up at justice", sign_up(lab, 1, "paul.durand"))
        assert jeanne.user_id.startswith("@jeanne.martin-interieur.example:"), jeanne.user_id
        wanted = {"preset": "private_chat", "invite": [paul.user_id]}
        room = (await steps.run("create", jeanne.call("POST", "/createRoom", wanted)))["room_id"]
        await steps.run("invite and join", invited(paul, room))
        for teller, hearer in [(jeanne, paul), (paul, jeanne)]:
            said = await say(teller, room, f"bonjour-{teller.device_id}")
            await steps.run("a message arrives", hears(hearer, room, said))
        await steps.run("stop", lab.stop())
    finally:
        lab.kill()


async def main() -> None:
    """Walks through the lab in a folder of its own."""
    async with asyncio.timeout(WHOLE_LIMIT):
        with tempfile.TemporaryDirectory(prefix="chappe-lab-") as folder:
            await walk(Lab(Path(folder)))
    print("lab: all steps held")


if __name__ == "__main__":
    conclude(main())
