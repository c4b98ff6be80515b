"""Chappe and Synapse, each the other's guest, on loopback with an authority of their own.

python -m interop.synapse [--servers chappe synapse] [--keep FOLDER]
CHAPPE_BIN names the binary.
"""

import asyncio
from pathlib import Path

from ..nio.__main__ import introduce
from ..steps import Steps, arguments, conclude, work_folder
from .authority import Authority
from .servers import KINDS, START_LIMIT, Server
from .story import Story

WHOLE_LIMIT = 900.0


async def meet(folder: Path, kinds: list[str]) -> None:
    """Starts both servers, tells every story in both directions, stops them."""
    authority = Authority(folder)
    one, two = (KINDS[kind](folder, authority) for kind in kinds)
    try:
        started = asyncio.gather(one.start(), two.start())
        await Steps("servers").run("start", started, START_LIMIT)
        for home, away in [(one, two), (two, one)]:
            label = f"encrypted, {home.label} to {away.label}"
            await introduce(label, home.base, away.base, home.registration)
            await Story(home, away).tell()
        await Steps("servers").run("stop", asyncio.gather(one.stop(), two.stop()))
    finally:
        one.kill()
        two.kill()


async def main() -> None:
    """Reads the arguments."""
    parser = arguments(__doc__)
    parser.add_argument("--servers", nargs=2, choices=sorted(KINDS), default=["chappe", "synapse"])
    options = parser.parse_args()
    async with asyncio.timeout(WHOLE_LIMIT):
        with work_folder("synapse", options.keep) as folder:
            await meet(folder, options.servers)
    print("synapse: all steps held")


if __name__ == "__main__":
    conclude(main())
