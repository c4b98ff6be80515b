"""Named steps, bounded in time, waiting for something to become true, and where a program of steps works."""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STEP_LIMIT = 45.0
POLL = 0.05


class StepFailed(Exception):
    """A step did not hold; it has been printed."""


class Steps:
    """Prints what held and what did not, under one label."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.held = 0

    async def run(self, name: str, action: Awaitable[Any], limit: float = STEP_LIMIT) -> Any:
        """Awaits `action` for at most `limit` seconds; raises StepFailed when it does not hold."""
        began = time.monotonic()
        try:
            result = await asyncio.wait_for(action, limit)
        except TimeoutError as error:
            print(f"{self.label}: FAIL {name}: nothing within {limit:.0f} s", flush=True)
            raise StepFailed(name) from error
        except Exception as error:
            print(f"{self.label}: FAIL {name}: {type(error).__name__}: {error}", flush=True)
            raise StepFailed(name) from error
        self.held += 1
        print(f"{self.label}: ok   {name} ({(time.monotonic() - began) * 1000:.0f} ms)", flush=True)
        return result


async def until(look: Callable[[], Any]) -> Any:
    """Waits until `look` gives something truthy, and gives that. The caller's step bounds it."""
    while not (value := look()):
        await asyncio.sleep(POLL)
    return value


async def until_answer(ask: Callable[[], Awaitable[Any]]) -> Any:
    """As `until`, for a question that has to be awaited."""
    while not (value := await ask()):
        await asyncio.sleep(4 * POLL)
    return value


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that every program has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--keep", type=Path, help="an empty folder for data and logs, kept afterwards")
    return parser


@contextmanager
def work_folder(label: str, keep: Path | None) -> Iterator[Path]:
    """The folder to keep, or one that is gone afterwards."""
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
    else:
        with tempfile.TemporaryDirectory(prefix=f"chappe-{label}-") as folder:
            yield Path(folder)


def conclude(program: Awaitable[None]) -> None:
    """Runs a program of steps; exits 1 when one did not hold."""
    try:
        asyncio.run(program)
    except StepFailed:
        sys.exit(1)
