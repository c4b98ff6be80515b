"""One person at a client: matrix-nio with encryption, syncing in the background."""

import asyncio
import io
from contextlib import suppress
from typing import Any

from nio import AsyncClient, AsyncClientConfig, Event, MegolmEvent, ReceiptEvent, TypingNoticeEvent
from nio.crypto import decrypt_attachment
from nio.exceptions import EncryptionError
from nio.responses import ErrorResponse

from ..accounts import Account
from ..steps import until

SYNC_TIMEOUT_MS = 10_000
ENCRYPTED = [{"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}]


class Agent:
    """What the client has seen, by kind, and what one does with it."""

    def __init__(self, account: Account, folder: str) -> None:
        self.account = account
        config = AsyncClientConfig(encryption_enabled=True, store_sync_tokens=False)
        self.client = AsyncClient(account.base, account.user_id, account.device_id, folder, config)
        self.client.restore_login(account.user_id, account.device_id, account.token)
        self.events: dict[str, Event] = {}
        self.typing: dict[str, list[str]] = {}
        self.receipts: set[tuple[str, str]] = set()
        self.syncing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Uploads keys and begins to sync; returns after the first sync."""
        self.client.add_event_callback(self._on_event, Event)
        self.client.add_ephemeral_callback(self._on_typing, TypingNoticeEvent)
        self.client.add_ephemeral_callback(self._on_receipt, ReceiptEvent)
        good(await self.client.keys_upload())
        self.syncing = asyncio.create_task(self.client.sync_forever(SYNC_TIMEOUT_MS))
        await until(self._synced)

    def _synced(self) -> bool:
        if self.syncing is not None and self.syncing.done():
            self.syncing.result()
        return bool(self.client.next_batch)

    async def stop(self) -> None:
        """Stops syncing and closes connections."""
        if self.syncing is not None:
            self.syncing.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await self.syncing
        await self.client.close()

    async def _on_event(self, _room: Any, event: Event) -> None:
        self.events[event.event_id] = event

    async def _on_typing(self, room: Any, event: TypingNoticeEvent) -> None:
        self.typing[room.room_id] = event.users

    async def _on_receipt(self, _room: Any, event: ReceiptEvent) -> None:
        self.receipts |= {(receipt.event_id, receipt.user_id) for receipt in event.receipts}

    async def create_encrypted(self, *invited: str) -> str:
        """Creates a private encrypted room."""
        answer = await self.client.room_create(name="nio", invite=invited, initial_state=ENCRYPTED)
        return good(answer).room_id

    async def accept(self, room_id: str) -> None:
        """Waits for the invitation and joins."""
        await until(lambda: room_id in self.client.invited_rooms)
        good(await self.client.join(room_id))
        await until(lambda: room_id in self.client.rooms)

    async def knows_devices_of(self, user_id: str, room_id: str) -> None:
        """Waits until the other is seen in the room and has devices to encrypt for."""
        await until(lambda: room_id in self.client.rooms and user_id in self.client.rooms[room_id].users)
        await until(lambda: any(self.client.device_store.active_user_devices(user_id)))

    async def send(self, room_id: str, content: dict[str, Any]) -> str:
        """Sends a message, encrypted if the room is; gives its event id."""
        answer = await self.client.room_send(
            room_id, "m.room.message", content, ignore_unverified_devices=True
        )
        return good(answer).event_id

    async def receive(self, event_id: str) -> Event:
        """Waits for an event of another in clear, and checks that it travelled encrypted."""
        event = await until(lambda: self._read(event_id))
        assert event.decrypted, f"{event_id} travelled in clear"
        return event

    def _read(self, event_id: str) -> Event | None:
        """An event that has come, and its key with it, before it or after it."""
        event = self.events.get(event_id)
        if isinstance(event, MegolmEvent):
            with suppress(EncryptionError):
                self.events[event_id] = self.client.decrypt_event(event)
            return None
        return event

    async def upload(self, data: bytes, name: str) -> dict[str, Any]:
        """Encrypts and uploads; gives the content of a file message."""
        answer, keys = await self.client.upload(
            lambda *_: io.BytesIO(data), filename=name, encrypt=True, filesize=len(data)
        )
        file = dict(keys, url=good(answer).content_uri)
        return {"msgtype": "m.file", "body": name, "info": {"size": len(data)}, "file": file}

    async def fetch(self, file: dict[str, Any]) -> bytes:
        """Downloads and decrypts what a file message points to."""
        body = good(await self.client.download(file["url"])).body
        return decrypt_attachment(body, file["key"]["k"], file["hashes"]["sha256"], file["iv"])


def good(answer: Any) -> Any:
    """The answer, unless it is an error."""
    if isinstance(answer, ErrorResponse):
        raise AssertionError(str(answer))
    return answer
