"""EDGE: pages over HTTP, from `control/pages`: the viewer page with the settings that it asks for, and the map.

The pages are built from `web/` and travel in the wheel. `control.cli.demo` serves the viewer page beside a relay of its
own; `control.api` serves the operators' map and `place.js`.
"""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from tradewind.http1 import HttpLimits, HttpServer, Request, Response

PAGES_LIMITS = HttpLimits(connections=128, requests=32)


class PagesMissing(Exception):
    """The pages have not been built in this checkout."""


def page_files() -> dict[str, Traversable]:
    """The built pages by path. Raises PagesMissing."""
    folder = files("control") / "pages"
    found = (
        {f"/{file.name}": file for file in folder.iterdir() if not file.name.startswith(".")} if folder.is_dir() else {}
    )
    if "/index.html" not in found:
        raise PagesMissing("the viewer page is not built: run web/build")
    return found


def page_server(settings: Callable[[], Mapping[str, Any]]) -> HttpServer:
    """Serve the pages, and `settings()` as /config.json: which relay, which namespace. Raises PagesMissing."""
    pages = page_files()

    async def answer(request: Request) -> Response:
        path = request.path.partition("?")[0]
        if path == "/config.json":
            body = json.dumps(settings()).encode()
            return Response(body, content_type="application/json", headers=(("Cache-Control", "no-store"),))
        page = pages.get("/index.html" if path == "/" else path)
        if page is None:
            return Response(b"not found\n", HTTPStatus.NOT_FOUND)
        return _file(page, (("Cache-Control", "no-cache"),))

    return HttpServer(answer, PAGES_LIMITS)


def map_routes() -> dict[str, Callable[[Request], Awaitable[Response]]]:
    """Paths of the operators' map, which everybody may load: what it shows takes a token; and `/place.js`, for players'
    pages of any origin. Where the pages are not built each says so.
    """
    try:
        pages = page_files()
    except PagesMissing:
        pages = {}
    return {path: _serve(pages.get(name), headers) for path, name, headers in _MAP}


_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_NOWHERE_ELSE = (
    ("Content-Security-Policy", _POLICY),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)
_MAP = (
    ("/map", "/map.html", _NOWHERE_ELSE),
    ("/map.js", "/map.js", _NOWHERE_ELSE),
    ("/map.css", "/map.css", _NOWHERE_ELSE),
    ("/place.js", "/place.js", (("Access-Control-Allow-Origin", "*"),)),
)


def _serve(page: Traversable | None, headers: tuple[tuple[str, str], ...]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        if page is None:
            return Response(b"this page is not built: run web/build\n", HTTPStatus.NOT_FOUND)
        return _file(page, headers)

    return answer


def _file(page: Traversable, headers: tuple[tuple[str, str], ...]) -> Response:
    kind = mimetypes.guess_type(page.name)[0] or "application/octet-stream"
    charset = "; charset=utf-8" if kind.startswith("text/") else ""
    return Response(page.read_bytes(), content_type=kind + charset, headers=headers)
