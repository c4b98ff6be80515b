"""A real browser against Chappe: an application of another origin, and every page that the server shows to people.

python -m interop.browser [--keep FOLDER]
CHAPPE_BIN names the binary; node, the packages of interop/js and Debian's chromium must be there. With --keep the folder has
a picture of each page, in `pictures`.
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from .steps import Steps, arguments, conclude, work_folder
from .synapse.authority import Authority
from .synapse.servers import START_LIMIT, Chappe, Server, free_port

PROGRAMS = Path(__file__).parent / "js" / "browser"
PROGRAM_LIMIT = 240.0
WHOLE_LIMIT = 900.0


class Browsed(Chappe):
    """A server as browsers want it: everything by TLS, and people who come by mail and by an identity provider."""

    label = "browsed"

    def __init__(self, folder: Path, authority: Authority) -> None:
        super().__init__(folder, authority)
        self.port = free_port()
        self.origin = f"https://localhost:{self.port}"
        self.provider = f"https://127.0.0.2:{free_port()}"

    def configure(self, servers: Sequence[Server]) -> None:
        super().configure(servers)
        with (self.folder / "chappe.toml").open("a") as file:
            file.write(f"""
[[listeners]]
port = {self.port}
apis = ["client", "media"]
tls = {{ certificate = "{self.certificate}", key = "{self.key}" }}

[client.registration]
email = true

[[sso.providers]]
id = "ministry"
name = "Ministry"
issuer = "{self.provider}"
client_id = "chappe"
userinfo = "none"

[sso.providers.accounts]
create = true

[accounts.validity]
days = 90

[media]
max_upload_bytes = 4000000
""")

    def environment(self) -> dict[str, str]:
        return super().environment() | {"CHAPPE__PUBLIC_BASEURL": self.origin}

    async def start(self) -> None:
        # Without the mailbox: the programs take the mails.
        await Server.start(self)


async def run(program: str, server: Browsed) -> None:
    """A program; its own output tells the steps."""
    process = await asyncio.create_subprocess_exec(
        "node",
        str(PROGRAMS / program),
        server.base,
        server.origin,
        *("--registration", server.registration),
        *("--folder", str(server.folder)),
        *("--mail", str(server.mailbox.port)),
        *("--provider", server.provider),
        env=os.environ | {"NODE_EXTRA_CA_CERTS": str(server.authority.file)},
    )
    try:
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert code == 0, f"{program} ended with {code}"


async def browse(folder: Path) -> None:
    """Starts the server and opens everything."""
    steps = Steps("browser")
    server = Browsed(folder, Authority(folder))
    server.configure([server])
    try:
        await steps.run("start", server.start(), START_LIMIT)
        for program in ("chat.mjs", "pages.mjs", "sso.mjs", "mails.mjs"):
            await steps.run(program, run(program, server), PROGRAM_LIMIT)
        await steps.run("stop", server.stop())
    finally:
        server.kill()


async def main() -> None:
    """Reads the arguments."""
    options = arguments(__doc__).parse_args()
    async with asyncio.timeout(WHOLE_LIMIT):
        with work_folder("browser", options.keep) as folder:
            await browse(folder)
    print("browser: all steps held")


if __name__ == "__main__":
    conclude(main())
