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
        with suppress(OSError):
            ours = await asyncio.open_connection("127.0.0.1", self.inner)
            self.ends |= {writer, ours[1]}
            await asyncio.gather(copy(reader, ours[1]), copy(ours[0], writer))
            self.ends -= {writer, ours[1]}
            ours[1].close()
        writer.close()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carries bytes until one end is gone, then tells the other."""
    with suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    writer.transport.close()
