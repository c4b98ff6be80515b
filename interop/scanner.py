"""The content scanner with a real ClamAV: a virus of no harm is uploaded, in clear and encrypted, and refused everywhere.

python -m interop.scanner [--keep FOLDER]
CHAPPE_BIN names the binary; clamd must be there (Debian's clamav-daemon). Its database is one signature of our own.
"""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
from nio.crypto.attachments import encrypt_attachment
from olm.pk import PkEncryption

from .accounts import Account, sign_up
from .steps import Steps, arguments, conclude, until_answer, work_folder
from .synapse.authority import Authority
from .synapse.servers import START_LIMIT, Chappe, Server

WHOLE_LIMIT = 240.0
# A file whose scan has just failed is left alone for half a minute.
WITHOUT_DAEMON_LIMIT = 90.0
PROXY = "/_matrix/media_proxy/unstable"
MEDIA = "/_matrix/client/v1/media"
# EICAR's test file in pieces, so that no scanner takes this file for it.
EICAR = "".join(["X5O!P%@AP[4", "\\PZX54(P^)7CC)7}", "$EICAR-STANDARD-", "ANTIVIRUS-TEST", "-FILE!$H+H*"]).encode()
CLEAN = b"rien de suspect"


class Clamd:
    """ClamAV's daemon on a socket of its own."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "clamd.sock"
        self.log = folder / "clamd.log"
        self.configuration = folder / "clamd.conf"
        self.process: subprocess.Popen[bytes] | None = None
        database, temporary = folder / "signatures", folder / "clamd-tmp"
        database.mkdir()
        temporary.mkdir()
        (database / "chappe.ndb").write_text(f"Chappe.Test.Eicar:0:*:{EICAR.hex()}\n")
        self.configuration.write_text(f"""
Foreground yes
LocalSocket {self.socket}
DatabaseDirectory {database}
TemporaryDirectory {temporary}
StreamMaxLength 100M
MaxFileSize 100M
MaxScanSize 100M
AlertExceedsMax yes
""")

    async def start(self) -> None:
        """Starts the daemon and waits until it answers."""
        program = shutil.which("clamd", path=os.environ["PATH"] + ":/usr/sbin")
        assert program, "clamd is not installed"
        command = [program, f"--config-file={self.configuration}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        await until_answer(self.answers)

    async def answers(self) -> bool:
        """Whether it says PONG."""
        assert self.process and self.process.poll() is None, self.log.read_text()
        try:
            reader, writer = await asyncio.open_unix_connection(self.socket)
        except OSError:
            return False
        writer.write(b"zPING\0")
        said = await reader.read()
        writer.close()
        return said == b"PONG\0"

    def stop(self) -> None:
        """Ends the daemon."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None


class Scanned(Chappe):
    """A server whose media are scanned whatever door they are asked for at."""

    label = "scanned"

    def configure(self, servers: Sequence[Server]) -> None:
        super().configure(servers)
        with (self.folder / "chappe.toml").open("a") as file:
            file.write(f'[scanner]\nclamd = "{self.folder.parent / "clamd.sock"}"\nenforce = true\n')


async def ask(account: Account, method: str, path: str, **more: Any) -> tuple[int, bytes]:
    """One request; status and body."""
    headers = {"Authorization": f"Bearer {account.token}"}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
        session.request(method, account.base + path, headers=headers, **more) as response,
    ):
        return response.status, await response.read()


async def upload(account: Account, data: bytes) -> str:
    """Uploads; the address of the medium."""
    status, body = await ask(account, "POST", "/_matrix/media/v3/upload", data=data)
    assert status == 200, body
    return json.loads(body)["content_uri"]


async def gets(account: Account, wanted: bytes, method: str, path: str, **more: Any) -> None:
    """Expects these bytes."""
    status, body = await ask(account, method, path, **more)
    assert (status, body) == (200, wanted), f"{path}: {status} {body[:200]!r}"


async def refused(account: Account, wanted: tuple[int, str], method: str, path: str, **more: Any) -> None:
    """Expects a refusal."""
    status, body = await ask(account, method, path, **more)
    assert status == wanted[0], f"{path}: {status} {body[:200]!r}"
    assert json.loads(body)["errcode"] == wanted[1], body


NOT_CLEAN = (403, "MCS_MEDIA_NOT_CLEAN")


async def in_clear(account: Account) -> None:
    """Files as they are, at every door."""
    for data, is_clean in [(CLEAN, True), (EICAR, False), (b"x" * 3_000_000 + EICAR, False)]:
        place = (await upload(account, data)).removeprefix("mxc://")
        for path in [f"{PROXY}/download/{place}", f"{MEDIA}/download/{place}"]:
            if is_clean:
                await gets(account, data, "GET", path)
            else:
                await refused(account, NOT_CLEAN, "GET", path)
        status, said = await ask(account, "GET", f"{PROXY}/scan/{place}")
        assert status == 200 and json.loads(said)["clean"] is is_clean, said


async def encrypted(account: Account) -> None:
    """Files as clients of encrypted rooms send them, their keys in clear and encrypted by libolm."""
    _, key = await ask(account, "GET", f"{PROXY}/public_key")
    seal = PkEncryption(json.loads(key)["public_key"])
    for data, is_clean in [(CLEAN, True), (EICAR, False)]:
        sent, file = encrypt_attachment(data)
        file["url"] = await upload(account, sent)
        sealed = seal.encrypt(json.dumps({"file": file}))
        body = {"ciphertext": sealed.ciphertext, "mac": sealed.mac, "ephemeral": sealed.ephemeral_key}
        for asked in [{"file": file}, {"encrypted_body": body}]:
            path = f"{PROXY}/download_encrypted"
            if is_clean:
                await gets(account, sent, "POST", path, json=asked)
            else:
                await refused(account, NOT_CLEAN, "POST", path, json=asked)
            status, said = await ask(account, "POST", f"{PROXY}/scan_encrypted", json=asked)
            assert status == 200 and json.loads(said)["clean"] is is_clean, said


async def without_daemon(account: Account, clamd: Clamd) -> None:
    """Nothing goes out that was not scanned."""
    place = (await upload(account, b"nobody looks at this")).removeprefix("mxc://")
    clamd.stop()
    await refused(account, (500, "M_UNKNOWN"), "GET", f"{PROXY}/download/{place}")
    await refused(account, (503, "M_UNKNOWN"), "GET", f"{MEDIA}/download/{place}")
    await clamd.start()

    async def given() -> bool:
        return await ask(account, "GET", f"{PROXY}/download/{place}") == (200, b"nobody looks at this")

    await until_answer(given)


async def scan(folder: Path) -> None:
    """Starts both and tries every way in."""
    steps = Steps("scanner")
    clamd, server = Clamd(folder), Scanned(folder, Authority(folder))
    server.configure([server])
    try:
        await steps.run("start clamd", clamd.start(), START_LIMIT)
        await steps.run("start", server.start(), START_LIMIT)
        account = await steps.run("sign up", sign_up(server.base, "camille", server.registration))
        await steps.run("files in clear", in_clear(account))
        await steps.run("encrypted files", encrypted(account))
        await steps.run("no daemon, no new files", without_daemon(account, clamd), WITHOUT_DAEMON_LIMIT)
        await steps.run("stop", server.stop())
    finally:
        server.kill()
        clamd.stop()


async def main() -> None:
    """Reads the arguments."""
    options = arguments(__doc__).parse_args()
    async with asyncio.timeout(WHOLE_LIMIT):
        with work_folder("scanner", options.keep) as folder:
            await scan(folder)
    print("scanner: all steps held")


if __name__ == "__main__":
    conclude(main())
