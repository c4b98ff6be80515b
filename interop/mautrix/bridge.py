"""The bridge: a bot that reads and writes in encrypted rooms from transactions alone, without ever syncing."""

import asyncio
from pathlib import Path
from typing import Any

from aiohttp import web
from mautrix.appservice import AppService
from mautrix.appservice.state_store import FileASStateStore
from mautrix.client import Client
from mautrix.crypto import OlmMachine
from mautrix.crypto.store import MemoryCryptoStore, StateStore
from mautrix.errors import EncryptionError, SessionNotFound
from mautrix.types import EventType, Membership, MessageType, TextMessageEventContent

from ..steps import until
from .server import BridgedChappe

DEVICE = "BRIDGE"
PATIENCE = 30


class Rooms(StateStore):
    """What the encryption asks about rooms, from what the transactions said."""

    def __init__(self, store: FileASStateStore) -> None:
        self.store = store

    async def is_encrypted(self, room_id: str) -> bool:
        return bool(await self.store.is_encrypted(room_id))

    async def get_encryption_info(self, room_id: str) -> Any:
        return await self.store.get_encryption_info(room_id)

    async def find_shared_rooms(self, user_id: str) -> list[str]:
        return [room for room, members in self.store.members.items() if user_id in members]


class Bridge:
    """What the bot has been told, and what it does."""

    def __init__(self, server: BridgedChappe, folder: Path) -> None:
        self.server = server
        self.service = AppService(
            server=server.base,
            domain=server.name,
            as_token=server.as_token,
            hs_token=server.hs_token,
            bot_localpart="bridgebot",
            id="interop",
            state_store=FileASStateStore(path=str(folder / "mautrix.json"), binary=False),
            ephemeral_events=True,
            encryption_events=True,
        )
        self.user_id = str(self.service.bot_mxid)
        self.texts: dict[str, str] = {}
        self.order: list[str] = []
        self.typing: dict[str, list[str]] = {}
        self.read: set[tuple[str, str]] = set()
        self.joined: set[str] = set()
        self.asked: list[str] = []
        self.service.matrix_event_handler(self._on_event)
        self.service.query_alias = self._on_alias
        self.service.query_user = self._on_user

    async def start(self) -> None:
        """Listens, makes the bot's device, uploads its keys."""
        await self.service.start("127.0.0.1", self.server.service_port)
        store = MemoryCryptoStore("", "interop")
        self.client = Client(
            base_url=self.server.base,
            mxid=self.service.bot_mxid,
            sync_store=store,
            state_store=self.service.state_store,
        )
        self.client.api.token = self.server.as_token
        self.crypto = OlmMachine(self.client, store, Rooms(self.service.state_store))
        self.service.otk_handler = self.crypto.handle_as_otk_counts
        self.service.device_list_handler = self.crypto.handle_as_device_lists
        self.service.to_device_handler = self.crypto.handle_as_to_device_event
        await self.client.create_device_msc4190(DEVICE, "Bridge")
        await self.crypto.load()
        await self.crypto.share_keys()

    async def stop(self) -> None:
        """Closes everything."""
        await self.service.stop()
        await self.client.api.session.close()

    async def go_away(self) -> None:
        """Stops listening and nothing else."""
        await self.service.runner.cleanup()

    async def come_back(self) -> None:
        """Listens again, at the same place."""
        # The application was closed with its runner; the handlers are those of before.
        self.service.app = web.Application()
        self.service.register_routes(self.service.app)
        self.service.runner = web.AppRunner(self.service.app)
        await self.service.runner.setup()
        await web.TCPSite(self.service.runner, "127.0.0.1", self.server.service_port).start()

    async def _on_event(self, event: Any) -> None:
        if event.type == EventType.TYPING:
            self.typing[event.room_id] = list(event.content.user_ids)
        elif event.type == EventType.RECEIPT:
            for event_id, kinds in event.content.items():
                self.read |= {(event_id, user) for users in kinds.values() for user in users}
        elif event.type == EventType.ROOM_MEMBER:
            await self._on_member(event)
        elif event.type == EventType.ROOM_ENCRYPTED:
            await self._on_encrypted(event)

    async def _on_member(self, event: Any) -> None:
        await self.crypto.handle_member_event(event)
        if event.state_key == self.user_id and event.content.membership == Membership.INVITE:
            await self.client.join_room(event.room_id)
            # What the room was before the bot came is asked for once.
            await self.client.get_state(event.room_id)
            self.joined.add(event.room_id)

    async def _on_encrypted(self, event: Any) -> None:
        if event.sender == self.user_id:
            return
        self.order.append(event.event_id)
        try:
            decrypted = await self.crypto.decrypt_megolm_event(event)
        except SessionNotFound as error:
            room, session = event.room_id, error.session_id
            assert await self.crypto.wait_for_session(room, session, timeout=PATIENCE), "no key came"
            decrypted = await self.crypto.decrypt_megolm_event(event)
        self.texts[event.event_id] = decrypted.content.body

    async def _on_alias(self, alias: str) -> dict[str, Any]:
        self.asked.append(alias)
        name = alias.split(":")[0].removeprefix("#")
        await self.service.intent.create_room(alias_localpart=name, name=name)
        return {"made": True}

    async def _on_user(self, user_id: str) -> dict[str, Any]:
        self.asked.append(user_id)
        await self.service.intent.user(user_id).ensure_registered()
        return {"made": True}

    async def hears(self, event_id: str) -> str:
        """Waits for an encrypted message; gives its text."""
        await until(lambda: event_id in self.texts)
        return self.texts[event_id]

    async def say(self, room: str, body: str, *readers: str) -> str:
        """Says something, encrypted for these; gives the event's id."""
        content = TextMessageEventContent(msgtype=MessageType.TEXT, body=body)
        try:
            encrypted = await self.crypto.encrypt_megolm_event(room, EventType.ROOM_MESSAGE, content)
        except EncryptionError:
            await self.crypto.share_group_session(room, list(readers))
            encrypted = await self.crypto.encrypt_megolm_event(room, EventType.ROOM_MESSAGE, content)
        return str(await self.client.send_message_event(room, EventType.ROOM_ENCRYPTED, encrypted))

    async def ping(self) -> int:
        """Has the server ask whether the bridge is there; gives milliseconds."""
        return await asyncio.wait_for(self.service.ping_self("interop-ping"), PATIENCE)
