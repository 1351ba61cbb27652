"""The live page's files, which ship with the package; they hold no secrets, so anybody may have them."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from aiohttp import web

from edgeasr.serve.security import without_token

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
}


@without_token
async def page(request: web.Request) -> web.Response:
    """The page, or the file of it that the path names. errors: aiohttp's HTTPNotFound"""
    name = request.match_info.get("name", "index.html")
    file = page_files().get(name)
    if file is None:
        raise web.HTTPNotFound
    return web.Response(body=file, content_type=_TYPES[name.rpartition(".")[2]], charset="utf-8", headers=_HEADERS)


@cache
def page_files() -> dict[str, bytes]:
    """All of them, by name."""
    folder = files("edgeasr.serve") / "page"
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
