"""Chapters: media of the other server."""

import io
import secrets

import aiohttp
from PIL import Image

from ..accounts import Account
from .pair import Pair

LARGE = 3_000_000


async def download(pair: Pair) -> None:
    """A large file comes back byte for byte, with its name and type; one that is not there is 404."""
    for owner, other in pair.both():
        data = secrets.token_bytes(LARGE)
        medium = await upload(owner.account, data, "application/pdf", "rapport été.pdf")
        status, headers, found = await fetch(other.account, f"download/{medium}")
        assert status == 200 and found == data, f"{status}, {len(found)} bytes"
        assert headers["Content-Type"] == "application/pdf", str(headers)
        assert "rapport%20%C3%A9t%C3%A9.pdf" in headers["Content-Disposition"], str(headers)
        status, _, _ = await fetch(other.account, f"download/{owner.server.name}/nothere")
        assert status == 404, f"a medium that is not there gives {status}"


async def thumbnails(pair: Pair) -> None:
    """A thumbnail of the other server's picture has the size that was asked for."""
    for owner, other in pair.both():
        picture = io.BytesIO()
        Image.new("RGB", (640, 480), "teal").save(picture, "PNG")
        medium = await upload(owner.account, picture.getvalue(), "image/png", "tour.png")
        for method, size in [("crop", (32, 32)), ("scale", (320, 240))]:
            query = f"?method={method}&width={size[0]}&height={size[1]}"
            status, headers, found = await fetch(other.account, f"thumbnail/{medium}{query}")
            assert status == 200, f"{method}: {status} {found[:200]!r}"
            assert headers["Content-Type"].startswith("image/"), str(headers)
            thumbnail = Image.open(io.BytesIO(found))
            assert thumbnail.size == size, f"{method}: {thumbnail.size}"


async def upload(account: Account, data: bytes, kind: str, name: str) -> str:
    """Uploads; gives server and id, as they stand in a path."""
    headers = {"Authorization": f"Bearer {account.token}", "Content-Type": kind}
    url = f"{account.base}/_matrix/media/v3/upload"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=data, headers=headers, params={"filename": name}) as response,
    ):
        answer = await response.json()
        assert response.status == 200, str(answer)
        return answer["content_uri"].removeprefix("mxc://")


async def fetch(account: Account, path: str) -> tuple[int, dict[str, str], bytes]:
    """Asks for a medium: status, headers, bytes."""
    headers = {"Authorization": f"Bearer {account.token}"}
    url = f"{account.base}/_matrix/client/v1/media/{path}"
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        return response.status, dict(response.headers), await response.read()
