"""What is told of rooms of one version, and which chapters held."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ..steps import STEP_LIMIT, StepFailed, Steps

AT_ONCE = 6


class Tale:
    """Goes on after a chapter that did not hold, and remembers it."""

    def __init__(self, label: str, version: str) -> None:
        self.label, self.version = label, version
        self.steps = Steps(f"version {version}, {label}")
        self.told: dict[str, bool] = {}

    async def tell(self, name: str, part: Callable[[], Awaitable[None]], limit: float = STEP_LIMIT) -> None:
        """Tells a chapter, or its next part unless an earlier one did not hold."""
        if not self.told.get(name, True):
            return
        try:
            await self.steps.run(name, part(), limit)
            self.told[name] = True
        except StepFailed:
            self.told[name] = False


async def together(parts: Sequence[Callable[[], Awaitable[Any]]]) -> None:
    """Runs all, some at a time."""
    places = asyncio.Semaphore(AT_ONCE)

    async def run(part: Callable[[], Awaitable[Any]]) -> None:
        async with places:
            await part()

    await asyncio.gather(*map(run, parts))
