"""Real clients against Chappe: each alone on one server, then across two.

python -m interop.clients [--keep FOLDER]
CHAPPE_BIN names the binary, CHAPPE_RUST_CLIENT that of interop/rust; node and the packages of interop/js must be there.
"""

import asyncio
import os
from pathlib import Path

from .accounts import register
from .nio.__main__ import introduce
from .steps import Steps, arguments, conclude, work_folder
from .synapse.authority import Authority
from .synapse.servers import START_LIMIT, Chappe, SecondChappe, Server

JS = Path(__file__).parent / "js"
CLIENT_LIMIT = 240.0
WHOLE_LIMIT = 900.0


async def run(*command: str) -> None:
    """Runs a program; its own output tells the steps."""
    process = await asyncio.create_subprocess_exec(*command)
    try:
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert code == 0, f"{Path(command[0]).name} ended with {code}"


async def js(program: str, first: Server, second: Server) -> None:
    """A program of matrix-js-sdk."""
    await run("node", str(JS / program), first.base, second.base, "--registration", first.registration)


async def rust(first: Server, second: Server) -> None:
    """The program of matrix-rust-sdk, for two people who have signed up."""
    people = []
    for name, server in [("alice", first), ("bob", second)]:
        user, password = await register(server.base, name, server.registration)
        people.append(server.base.replace("://", f"://{user}:{password}@"))
    await run(os.environ["CHAPPE_RUST_CLIENT"], *people)


async def main() -> None:
    """Starts two servers and lets every client talk."""
    options = arguments(__doc__).parse_args()
    async with asyncio.timeout(WHOLE_LIMIT):
        with work_folder("clients", options.keep) as folder:
            await talk(folder)
    print("clients: all steps held")


async def talk(folder: Path) -> None:
    """Every client on one server, then across both."""
    authority = Authority(folder)
    one, two = Chappe(folder, authority), SecondChappe(folder, authority)
    for server in (one, two):
        server.configure([one, two])
    servers = Steps("servers")
    try:
        await servers.run("start", asyncio.gather(one.start(), two.start()), START_LIMIT)
        for first, second in [(one, one), (one, two)]:
            where = "on one server" if first is second else "across two servers"
            await introduce(f"nio, {where}", first.base, second.base, first.registration)
            for program in ("talk.mjs", "explore.mjs"):
                await Steps("js").run(f"{program} {where}", js(program, first, second), CLIENT_LIMIT)
            await Steps("rust").run(f"matrix-rust-sdk {where}", rust(first, second), CLIENT_LIMIT)
        await servers.run("stop", asyncio.gather(one.stop(), two.stop()))
    finally:
        one.kill()
        two.kill()


if __name__ == "__main__":
    conclude(main())
