"""The line to a server's federation port, which can be cut while the server runs."""

import asyncio
from contextlib import suppress

CHUNK = 65536


class Wire:
    """Forwards connections from the port that others know to the one where the server listens."""

    def __init__(self, address: str, port: int, inner: int) -> None:
        self.address, self.port, self.inner = address, port, inner
        self.listener: asyncio.Server | None = None
        self.ends: set[asyncio.StreamWriter] = set()

    async def mend(self) -> None:
        """Takes connections; nothing happens to a wire that is whole."""
        if self.listener is None:
            self.listener = await asyncio.start_server(self._carry, self.address, self.port)

    def cut(self) -> None:
        """Refuses connections, and ends those that are open."""
        if self.listener is not None:
            self.listener.close()
            self.listener = None
        for end in list(self.ends):
            end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        with suppress(OSError):
            self._add(ends)
            answers, ours = await asyncio.open_connection("127.0.0.1", self.inner)
            ends.append(ours)
            self._add(ends)
            await asyncio.gather(copy(reader, ours), copy(answers, writer))
        for end in ends:
            end.close()
        self.ends.difference_update(ends)

    def _add(self, ends: list[asyncio.StreamWriter]) -> None:
        """Has these ends cut with the line; at once where that came first."""
        self.ends.update(ends)
        if self.listener is None or any(end.is_closing() for end in ends):
            for end in ends:
                end.transport.abort()
            raise ConnectionAbortedError


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carries bytes until one end is gone, then tells the other."""
    with suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    writer.transport.close()
