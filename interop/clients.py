"""Real clients against Chappe: each alone on one server, then across two.

python -m interop.clients [--keep FOLDER]
CHAPPE_BIN names the binary; node and the packages of interop/js must be there.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

from .nio.__main__ import introduce
from .steps import Steps, conclude
from .synapse.authority import Authority
from .synapse.servers import START_LIMIT, Chappe, SecondChappe, Server

JS = Path(__file__).parent / "js"
JS_LIMIT = 240.0
WHOLE_LIMIT = 600.0


async def js(program: str, first: Server, second: Server) -> None:
    """Runs a program of matrix-js-sdk; its own output tells the steps."""
    command = ["node", str(JS / program), first.base, second.base, "--registration", first.registration]
    process = await asyncio.create_subprocess_exec(*command)
    try:
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert code == 0, f"{program} ended with {code}"


async def main() -> None:
    """Starts two servers and lets every client talk."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="an empty folder for data and logs, kept afterwards")
    options = parser.parse_args()
    async with asyncio.timeout(WHOLE_LIMIT):
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            await talk(options.keep)
        else:
            with tempfile.TemporaryDirectory(prefix="chappe-clients-") as folder:
                await talk(Path(folder))
    print("clients: all steps held")


async def talk(folder: Path) -> None:
    """Every client on one server, then across both."""
    authority = Authority(folder)
    one, two = Chappe(folder, authority), SecondChappe(folder, authority)
    servers = Steps("servers")
    try:
        await servers.run("start", asyncio.gather(one.start(), two.start()), START_LIMIT)
        for first, second in [(one, one), (one, two)]:
            where = "on one server" if first is second else "across two servers"
            await introduce(f"nio, {where}", first.base, second.base, first.registration)
            for program in ("talk.mjs", "explore.mjs"):
                await Steps("js").run(f"{program} {where}", js(program, first, second), JS_LIMIT)
        await servers.run("stop", asyncio.gather(one.stop(), two.stop()))
    finally:
        one.kill()
        two.kill()


if __name__ == "__main__":
    conclude(main())
