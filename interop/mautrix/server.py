"""Chappe with the registration of one application service."""

import secrets
from collections.abc import Sequence

from ..synapse.servers import Chappe, Server, free_port

REGISTRATION = """
id: interop
url: {url}
as_token: {as_token}
hs_token: {hs_token}
sender_localpart: bridgebot
rate_limited: false
receive_ephemeral: true
org.matrix.msc3202: true
io.element.msc4190: true
protocols: [interop]
namespaces:
  users:
    - exclusive: true
      regex: '@bridge_.*'
  aliases:
    - exclusive: true
      regex: '#bridge_.*'
"""


class BridgedChappe(Chappe):
    """The binary named by CHAPPE_BIN, and where its service listens."""

    label = "chappe-bridged"

    def configure(self, servers: Sequence[Server]) -> None:
        super().configure(servers)
        self.service_port = free_port()
        self.as_token, self.hs_token = secrets.token_hex(16), secrets.token_hex(16)
        url = f"http://127.0.0.1:{self.service_port}"
        file = self.folder / "interop.yaml"
        file.write_text(REGISTRATION.format(url=url, as_token=self.as_token, hs_token=self.hs_token))
        with (self.folder / "chappe.toml").open("a") as configuration:
            configuration.write(f'\n[appservices]\nregistrations = ["{file}"]\nbackoff_max = 1\n')
