"""Homeservers as child processes on loopback: one Synapse, one Chappe, or two of a kind."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from signedjson.key import read_signing_keys

from ..accounts import Refused, call
from .authority import Authority
from .mail import Mailbox
from .wire import Wire

START_LIMIT = 40.0
STOP_LIMIT = 30.0
LOG_END = 5000
PORTS: set[int] = set()
SECRET = "interop"
CLIENTS = (
    "request login_by_ip login_by_account registration message to_device device join invite address_invite"
    " search upload remote_media"
)
IDENTITY = "info request registration lookup"
PEERS = "requests invites invites_to_user key_lookups bound bound_invites"


def unlimited(names: str) -> str:
    """Rates without a limit, for a configuration of Chappe."""
    return "\n".join(f"{name} = {{ per_second = 0, burst = 0 }}" for name in names.split())


def free_port() -> int:
    """A port that nobody listens on now, and that was not given away before."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in PORTS:
            PORTS.add(port)
            return port


class Server(ABC):
    """A homeserver named `HOST:PORT`: clients in clear on one port; federation by TLS, behind a wire."""

    label: str
    software: str
    # No two have the same name with another port: server ACLs know no ports.
    host: str
    key_file: str
    # What the log says when the members of a room have come, where that is after the join.
    came_later: str

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.folder = folder / self.label
        self.folder.mkdir()
        self.authority = authority
        self.client_port, self.federation_port = free_port(), free_port()
        address = "127.0.0.1" if self.host == "localhost" else self.host
        self.wire = Wire(address, free_port(), self.federation_port)
        self.name = f"{self.host}:{self.wire.port}"
        self.base = f"http://127.0.0.1:{self.client_port}"
        self.registration = f"secret:{SECRET}"
        self.certificate, self.key = authority.issue(self.folder)
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def configure(self, servers: Sequence["Server"]) -> None:
        """Writes the configuration; all servers are known by now."""

    @abstractmethod
    def command(self) -> list[str]:
        """The command that serves."""

    def environment(self) -> dict[str, str]:
        """What it runs in."""
        return dict(os.environ)

    def signing_key(self) -> object:
        """The key that signs its events and requests."""
        lines = (self.folder / self.key_file).read_text().splitlines()
        return read_signing_keys(lines[:1])[0]

    async def start(self) -> None:
        """Starts the process and waits until clients are answered."""
        await self.wire.mend()
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, cwd=self.folder, env=self.environment()
            )
        async with asyncio.timeout(START_LIMIT):
            while not await self._answers():
                if self.process.poll() is not None:
                    raise RuntimeError(f"{self.label} ended: {self.log()[-3000:]}")
                await asyncio.sleep(0.1)

    async def _answers(self) -> bool:
        try:
            return bool(await call(self.base, "GET", "/_matrix/client/versions"))
        except (OSError, Refused, TimeoutError, ValueError):
            return False

    async def stop(self) -> None:
        """Asks the process to end and waits for it."""
        if self.process is None:
            return
        self.wire.cut()
        self.process.terminate()
        try:
            await asyncio.to_thread(self.process.wait, STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise RuntimeError(f"{self.label} did not end within {STOP_LIMIT:.0f} s") from None
        finally:
            self.process = None

    def kill(self) -> None:
        """Ends the process at once if it still runs: something did not hold then, and the end of its log is shown."""
        self.wire.cut()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
            print(f"---- the log of {self.label} ends with\n{self.log()[-LOG_END:]}", flush=True)

    def log(self) -> str:
        """What it has said so far."""
        return (self.folder / "server.log").read_text(errors="replace")

    def completed(self, room: str) -> bool:
        """Whether the members of a room have come, where that is later than the join."""
        return any(self.came_later in line and room in line for line in self.log().splitlines())


class Synapse(Server):
    """Synapse from PyPI, on SQLite."""

    label = software = "synapse"
    host = "127.0.0.1"
    key_file = "signing.key"
    came_later = "State resync complete"

    def configure(self, servers: Sequence[Server]) -> None:
        federation = {
            "port": self.federation_port,
            "bind_addresses": ["127.0.0.1"],
            "type": "http",
            "tls": True,
            "resources": [{"names": ["federation"]}],
        }
        clients = {
            "port": self.client_port,
            "bind_addresses": ["127.0.0.1"],
            "type": "http",
            "resources": [{"names": ["client"]}],
        }
        log = {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"console": {"class": "logging.StreamHandler"}},
        }
        log["root"] = {"level": "INFO", "handlers": ["console"]}
        (self.folder / "log.yaml").write_text(json.dumps(log))
        many = {"per_second": 9999, "burst_count": 9999}
        settings = {
            "server_name": self.name,
            "report_stats": False,
            "pid_file": str(self.folder / "pid"),
            "listeners": [clients, federation],
            "tls_certificate_path": str(self.certificate),
            "tls_private_key_path": str(self.key),
            "federation_custom_ca_list": [str(self.authority.file)],
            "ip_range_blacklist": [],
            "federation_ip_range_blacklist": [],
            "trusted_key_servers": [],
            "database": {"name": "sqlite3", "args": {"database": str(self.folder / "database")}},
            "log_config": str(self.folder / "log.yaml"),
            "media_store_path": str(self.folder / "media"),
            "signing_key_path": str(self.folder / "signing.key"),
            "registration_shared_secret": SECRET,
            "bcrypt_rounds": 4,
            "rc_message": many,
            "rc_login": {"address": many, "account": many, "failed_attempts": many},
            "rc_joins": {"local": many, "remote": many},
            "rc_joins_per_room": many,
            "rc_invites": {"per_room": many, "per_user": many, "per_issuer": many},
            "rc_third_party_invite": many,
            "rc_room_creation": many,
            "rc_presence": {"per_user": many},
            "rc_federation": {"sleep_limit": 9999, "reject_limit": 9999, "concurrent": 99},
            "room_list_publication_rules": [{"action": "allow"}],
            "allow_public_rooms_over_federation": True,
            "background_updates": {"sleep_enabled": False},
            # A peer that was down is tried again soon, as after a short outage.
            "federation": {
                "destination_min_retry_interval": "1s",
                "destination_max_retry_interval": "2s",
                "max_long_retry_delay": "1s",
            },
        }
        (self.folder / "homeserver.yaml").write_text(json.dumps(settings))
        subprocess.run([*self.command(), "--generate-keys"], check=True, capture_output=True)

    def command(self) -> list[str]:
        return [sys.executable, "-m", "synapse.app.homeserver", "-c", str(self.folder / "homeserver.yaml")]

    def environment(self) -> dict[str, str]:
        # Identity servers are reached by the system's authorities alone.
        return super().environment() | {"SSL_CERT_FILE": str(self.authority.file)}


class SecondSynapse(Synapse):
    """Another Synapse, to try these tests without Chappe."""

    label = "synapse-2"
    host = "127.0.0.2"


class Chappe(Server):
    """The binary named by CHAPPE_BIN, with an identity service."""

    label = software = "chappe"
    host = "localhost"
    key_file = "data/signing.key"
    came_later = "the room has all its members"

    def __init__(self, folder: Path, authority: Authority) -> None:
        super().__init__(folder, authority)
        self.mailbox = Mailbox(free_port())

    async def start(self) -> None:
        await self.mailbox.open()
        await super().start()

    def configure(self, servers: Sequence[Server]) -> None:
        identity_servers = [server.name for server in servers if isinstance(server, Chappe)]
        (self.folder / "chappe.toml").write_text(f"""
server_name = "{self.name}"
data_dir = "{self.folder / "data"}"
public_baseurl = "{self.base}"

[[listeners]]
port = {self.client_port}
apis = ["client", "media", "identity", "admin"]

[[listeners]]
port = {self.federation_port}
apis = ["federation", "identity"]
tls = {{ certificate = "{self.certificate}", key = "{self.key}" }}

[outbound]
allowed_ranges = ["127.0.0.0/8"]
certificate_authorities = ["{self.authority.file}"]

[identity]
profile = "matrix"
addresses = "any"
language = "en"
mails_per_address = 0
mails_per_ip = 0

[identity.service]
servers = {json.dumps(identity_servers)}
invites_per_sender = 0

[identity_api.rates]
{unlimited(IDENTITY)}

[mail]
host = "127.0.0.1"
port = {self.mailbox.port}
security = "plain"
from = "chappe@example.org"

[client.rates]
{unlimited(CLIENTS)}

[accounts]
thread_subscriptions = true

[accounts.password]
memory_kib = 64
passes = 1

# A peer that was down is tried again soon, as after a short outage.
[federation]
backoff_min_ms = 500
backoff_max = 2

[federation.rates]
{unlimited(PEERS)}

[oauth]
enabled = true

[admin]
registration_shared_secret = "{SECRET}"
""")

    def command(self) -> list[str]:
        return [os.environ["CHAPPE_BIN"], "serve", "--config", str(self.folder / "chappe.toml")]


class SecondChappe(Chappe):
    """Another Chappe."""

    label = "chappe-2"
    host = "127.0.0.3"


class WholeChappe(Chappe):
    """A Chappe that is in a room only with all its members."""

    label = "chappe-whole"
    host = "127.0.0.4"
    came_later = ""

    def configure(self, servers: Sequence[Server]) -> None:
        super().configure(servers)
        with (self.folder / "chappe.toml").open("a") as configuration:
            configuration.write("\n[rooms]\npartial_joins = false\n")


ALL: list[type[Server]] = [Synapse, SecondSynapse, Chappe, SecondChappe, WholeChappe]
KINDS = {kind.label: kind for kind in ALL}
