"""Accounts and plain client API calls."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Any

import aiohttp

REGISTER = "/_matrix/client/v3/register"
LOGIN = "/_matrix/client/v3/login"
SHARED_SECRET = "/_synapse/admin/v1/register"


class Refused(Exception):
    """The server answered with a Matrix error."""

    def __init__(self, what: str, status: int, answer: dict[str, Any]) -> None:
        super().__init__(f"{what}: {status} {answer.get('errcode')} {answer.get('error')}")
        self.status = status
        self.answer = answer


@dataclass(frozen=True)
class Account:
    """A logged-in user."""

    base: str
    user_id: str
    password: str
    device_id: str
    token: str

    async def call(
        self, method: str, path: str, body: Any = None, **query: str | list[str]
    ) -> dict[str, Any]:
        """Calls `/_matrix/client/v3` + path as this user."""
        return await call(self.base, method, "/_matrix/client/v3" + path, body, self.token, query)

    async def get(self, path: str, **query: str | list[str]) -> dict[str, Any]:
        """Asks a path that is not below `v3`, as this user."""
        return await call(self.base, "GET", path, None, self.token, query)


async def call(
    base: str,
    method: str,
    path: str,
    body: Any = None,
    token: str | None = None,
    query: dict[str, str | list[str]] | None = None,
) -> dict[str, Any]:
    """Makes one request and gives its JSON answer; raises Refused unless it is a success."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    limit = aiohttp.ClientTimeout(total=60)
    async with (
        aiohttp.ClientSession(timeout=limit) as session,
        session.request(method, base + path, json=body, headers=headers, params=query) as response,
    ):
        answer = await response.json(content_type=None)
        if response.status >= 300:
            raise Refused(f"{method} {path}", response.status, answer or {})
        return answer


async def sign_up(base: str, name: str, method: str) -> Account:
    """Makes an account as `register` does, and logs in."""
    return await log_in(base, *await register(base, name, method))


async def register(base: str, name: str, method: str) -> tuple[str, str]:
    """Makes an account by `dummy`, `token:TOKEN` or `secret:SHARED_SECRET`; gives its name and password."""
    user = f"{name}-{secrets.token_hex(4)}"
    password = secrets.token_hex(12)
    kind, _, secret = method.partition(":")
    if kind == "secret":
        await register_with_secret(base, user, password, secret)
    else:
        await register_openly(base, user, password, secret)
    return user, password


async def log_in(base: str, user: str, password: str) -> Account:
    """Logs in with a password; every call is a new device."""
    identifier = {"type": "m.id.user", "user": user}
    body = {"type": "m.login.password", "identifier": identifier, "password": password}
    answer = await call(base, "POST", LOGIN, body)
    return Account(base, answer["user_id"], password, answer["device_id"], answer["access_token"])


async def register_with_secret(base: str, user: str, password: str, secret: str) -> None:
    """Registers with the shared secret of the server's administrator."""
    nonce = (await call(base, "GET", SHARED_SECRET))["nonce"]
    signed = "\0".join([nonce, user, password, "notadmin"]).encode()
    mac = hmac.new(secret.encode(), signed, hashlib.sha1).hexdigest()
    body = {"nonce": nonce, "username": user, "password": password, "admin": False, "mac": mac}
    await call(base, "POST", SHARED_SECRET, body)


async def register_openly(base: str, user: str, password: str, token: str) -> None:
    """Registers through user-interactive authentication, stage by stage."""
    body: dict[str, Any] = {"username": user, "password": password, "inhibit_login": True}
    for _ in range(5):
        try:
            await call(base, "POST", REGISTER, body)
            return
        except Refused as refused:
            if refused.status != 401 or "session" not in refused.answer:
                raise
            body["auth"] = next_stage(refused.answer, token)
    raise RuntimeError("registration did not end after five stages")


def next_stage(answer: dict[str, Any], token: str) -> dict[str, str]:
    """Chooses the next stage of a flow that a program can walk through."""
    able = {"m.login.dummy", "m.login.terms"} | ({"m.login.registration_token"} if token else set())
    flow = next((f["stages"] for f in answer["flows"] if set(f["stages"]) <= able), None)
    if flow is None:
        raise RuntimeError(f"no way to register: {answer['flows']}")
    kind = next(stage for stage in flow if stage not in answer.get("completed", []))
    stage = {"type": kind, "session": answer["session"]}
    return stage | {"token": token} if kind == "m.login.registration_token" else stage
