"""Homeservers as child processes on loopback: one Synapse, one Chappe, or two of a kind."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from pathlib import Path

from ..accounts import Refused, call
from .authority import Authority
from .wire import Wire

START_LIMIT = 40.0
STOP_LIMIT = 30.0
SECRET = "interop"
CLIENTS = "request login_by_ip login_by_account registration message join invite search upload remote_media"
PEERS = "requests invites invites_to_user key_lookups"


def unlimited(names: str) -> str:
    """Rates without a limit, for a configuration of Chappe."""
    return "\n".join(f"{name} = {{ per_second = 0, burst = 0 }}" for name in names.split())


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server(ABC):
    """A homeserver named `HOST:PORT`: clients in clear on one port; federation by TLS, behind a wire."""

    label: str
    software: str
    host = "localhost"

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.folder = folder / self.label
        self.folder.mkdir()
        self.authority = authority
        self.client_port, self.federation_port = free_port(), free_port()
        self.wire = Wire(free_port(), self.federation_port)
        self.name = f"{self.host}:{self.wire.port}"
        self.base = f"http://127.0.0.1:{self.client_port}"
        self.registration = f"secret:{SECRET}"
        self.certificate, self.key = authority.issue(self.folder)
        self.process: subprocess.Popen[bytes] | None = None
        self.configure()

    @abstractmethod
    def configure(self) -> None:
        """Writes the configuration."""

    @abstractmethod
    def command(self) -> list[str]:
        """The command that serves."""

    async def start(self) -> None:
        """Starts the process and waits until clients are answered."""
        await self.wire.mend()
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.folder)
        async with asyncio.timeout(START_LIMIT):
            while not await self._answers():
                if self.process.poll() is not None:
                    raise RuntimeError(f"{self.label} ended: {self.last_words()}")
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
        """Ends the process at once."""
        self.wire.cut()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def last_words(self) -> str:
        """The end of the log."""
        text = (self.folder / "server.log").read_text(errors="replace")
        return text[-3000:]


class Synapse(Server):
    """Synapse from PyPI, on SQLite."""

    label = software = "synapse"
    # Not the name of Chappe with another port: server ACLs know no ports.
    host = "127.0.0.1"

    def configure(self) -> None:
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
            "rc_room_creation": many,
            "rc_presence": {"per_user": many},
            "rc_federation": {"sleep_limit": 9999, "reject_limit": 9999, "concurrent": 99},
            "room_list_publication_rules": [{"action": "allow"}],
            "allow_public_rooms_over_federation": True,
            "background_updates": {"sleep_enabled": False},
            # A peer that was down is tried again soon, as after a short outage.
            "federation": {"destination_min_retry_interval": "1s", "destination_max_retry_interval": "2s"},
        }
        (self.folder / "homeserver.yaml").write_text(json.dumps(settings))
        subprocess.run([*self.command(), "--generate-keys"], check=True, capture_output=True)

    def command(self) -> list[str]:
        return [sys.executable, "-m", "synapse.app.homeserver", "-c", str(self.folder / "homeserver.yaml")]


class SecondSynapse(Synapse):
    """Another Synapse, to try these tests without Chappe."""

    label = "synapse-2"


class Chappe(Server):
    """The binary named by CHAPPE_BIN."""

    label = software = "chappe"

    def configure(self) -> None:
        (self.folder / "chappe.toml").write_text(f"""
server_name = "{self.name}"
data_dir = "{self.folder / "data"}"
public_baseurl = "{self.base}"

[[listeners]]
port = {self.client_port}
apis = ["client", "media", "admin"]

[[listeners]]
port = {self.federation_port}
apis = ["federation"]
tls = {{ certificate = "{self.certificate}", key = "{self.key}" }}

[outbound]
allowed_ranges = ["127.0.0.0/8"]
certificate_authorities = ["{self.authority.file}"]

[identity]
profile = "matrix"

[client.rates]
{unlimited(CLIENTS)}

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


class PartialChappe(Chappe):
    """A Chappe that is in a room before its members are (MSC3706)."""

    label = "chappe-partial"

    def configure(self) -> None:
        super().configure()
        with (self.folder / "chappe.toml").open("a") as configuration:
            configuration.write("\n[rooms]\npartial_joins = true\n")


ALL: list[type[Server]] = [Synapse, SecondSynapse, Chappe, SecondChappe, PartialChappe]
KINDS = {kind.label: kind for kind in ALL}
