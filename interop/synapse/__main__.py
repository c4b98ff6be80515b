"""Chappe and Synapse, each the other's guest, on loopback with an authority of their own.

python -m interop.synapse [--servers chappe synapse] [--versions 1 12] [--only WORDS] [--keep FOLDER]
python -m interop.synapse --table
CHAPPE_BIN names the binary.
"""

import asyncio
import sys
from collections.abc import Awaitable, Iterator
from functools import partial
from pathlib import Path

from ..nio.__main__ import introduce
from ..steps import Steps, arguments, conclude, work_folder
from .authority import Authority
from .chapters import ANY, CHAPTERS, FORMS, VERSIONS, table
from .crowd import Crowd
from .forks import Fork
from .outages import Divided, Drift, outage, partition
from .pair import Pair
from .residents import RESTRICTED, arrangements
from .servers import KINDS, START_LIMIT, SecondChappe, SecondSynapse, Server
from .tale import Tale, together

WHOLE_LIMIT = 1500.0


class Matrix:
    """Every chapter in every room version, both ways."""

    def __init__(self, servers: list[Server], versions: list[int], only: str) -> None:
        self.servers, self.only = servers, only
        one, two, third = servers
        ways = [(one, two), (two, one)]
        self.pairs = [Pair(home, away, str(version)) for version in versions for home, away in ways]
        self.forks = [Fork(turned(servers, version), str(version)) for version in versions]
        self.residents = [
            tale
            for version in versions
            if version in RESTRICTED
            for tale in arrangements(servers, str(version))
        ]
        once = [version for version in versions if version in ANY]
        # A Chappe first: hundreds of users are made there sooner.
        first, second = sorted((one, two), key=lambda server: server.software)
        self.crowds = [Crowd(first, second, third, str(version)) for version in once]
        self.drifts = [Drift(pair) for pair in self.pairs if int(pair.version) in once and pair.home is one]

    async def tell(self) -> None:
        """Chapters and encrypted conversations first, then what needs servers to be down."""
        await together([pair.sign_up for pair in self.pairs])
        one, two, _ = self.servers
        chapters = [partial(self.chapters, pair) for pair in self.pairs]
        several = [*self.crowds, *self.residents]
        chapters += [tale.chapters for tale in several if self.only in tale.subject]
        if self.only:
            return await together(chapters)
        await together([*chapters, *self.encrypted()])
        for down in (two, one):
            await outage(down, [pair for pair in self.pairs if int(pair.version) in FORMS])
        drifts = [(drift, drift) for drift in self.drifts]
        await partition((one, two), [*((pair, Divided(pair)) for pair in self.pairs), *drifts])
        await partition(self.servers, [(fork, fork) for fork in self.forks])

    async def chapters(self, pair: Pair) -> None:
        """What holds in rooms of the pair's version."""
        for chapter in CHAPTERS:
            if int(pair.version) not in chapter.versions or self.only not in chapter.name:
                continue
            if why := chapter.cannot.get(pair.kind):
                print(f"{pair.steps.label}: not  {chapter.name}: {why}")
            else:
                await pair.tell(chapter.name, partial(chapter.tell, pair))

    def encrypted(self) -> Iterator[partial[Awaitable[None]]]:
        """The conversations of matrix-nio."""
        one, two, _ = self.servers
        for home, away in [(one, two), (two, one)]:
            label = f"encrypted, {home.label} to {away.label}"
            yield partial(introduce, label, home.base, away.base, home.registration)

    def failed(self) -> list[str]:
        """What did not hold."""
        tales: list[Tale] = [*self.pairs, *self.residents, *self.crowds, *self.drifts, *self.forks]
        return [
            f"{tale.steps.label}: {name}" for tale in tales for name, held in tale.told.items() if not held
        ]


def turned(servers: list[Server], by: int) -> list[Server]:
    """The same servers, beginning with another."""
    first = by % len(servers)
    return servers[first:] + servers[:first]


async def meet(folder: Path, kinds: list[str], versions: list[int], only: str) -> None:
    """Starts the servers, tells everything, stops them."""
    authority = Authority(folder)
    third = next(kind for kind in (SecondChappe.label, SecondSynapse.label) if kind not in kinds)
    servers = [KINDS[kind](folder, authority) for kind in [*kinds, third]]
    for server in servers:
        server.configure(servers)
    matrix = Matrix(servers, versions, only)
    steps = Steps("servers")
    try:
        await steps.run("start", asyncio.gather(*(server.start() for server in servers)), START_LIMIT)
        await matrix.tell()
        await steps.run("stop", asyncio.gather(*(server.stop() for server in servers)))
    finally:
        for server in servers:
            server.kill()
    if failed := matrix.failed():
        print("did not hold:", *failed, sep="\n  ")
        sys.exit(1)


async def main() -> None:
    """Reads the arguments."""
    parser = arguments(__doc__)
    parser.add_argument("--servers", nargs=2, choices=sorted(KINDS), default=["chappe", "synapse"])
    parser.add_argument("--versions", nargs="+", type=int, choices=VERSIONS, default=VERSIONS)
    parser.add_argument("--only", default="", help="words of the chapters to be told, without outages")
    parser.add_argument("--table", action="store_true", help="print the table of chapters and end")
    options = parser.parse_args()
    if options.table:
        print(table())
        return
    async with asyncio.timeout(WHOLE_LIMIT):
        with work_folder("synapse", options.keep) as folder:
            await meet(folder, options.servers, options.versions, options.only)
    print("synapse: all steps held")


if __name__ == "__main__":
    conclude(main())
