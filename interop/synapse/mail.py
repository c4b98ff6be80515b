"""A mail relay that keeps what it gets."""

import asyncio
from email import message_from_bytes, policy
from email.message import EmailMessage

from ..steps import until


class Mailbox:
    """Takes mails from one server and gives out their texts."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.mails: dict[str, list[str]] = {}
        self.listener: asyncio.Server | None = None

    async def open(self) -> None:
        """Takes mails; nothing happens to a box that is open."""
        if self.listener is None:
            self.listener = await asyncio.start_server(self._converse, "127.0.0.1", self.port)

    async def take(self, address: str) -> str:
        """Waits for a mail to an address and takes it out."""
        mails: list[str] = await until(lambda: self.mails.get(address))
        return mails.pop(0)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to: list[str] = []
        writer.write(b"220 mailbox\r\n")
        while line := (await reader.readline()).decode().strip():
            command = line.upper()
            if command == "DATA":
                writer.write(b"354 go on\r\n")
                self._keep(to, await reader.readuntil(b"\r\n.\r\n"))
                to = []
            elif command.startswith("RCPT TO:"):
                to.append(line.partition("<")[2].partition(">")[0])
            writer.write(b"221 bye\r\n" if command == "QUIT" else b"250 yes\r\n")
        writer.close()

    def _keep(self, to: list[str], mail: bytes) -> None:
        message = message_from_bytes(mail.removesuffix(b".\r\n"), policy=policy.default)
        assert isinstance(message, EmailMessage)
        text = message.get_body(("plain",))
        for address in to:
            self.mails.setdefault(address, []).append(text.get_content() if text else "")
