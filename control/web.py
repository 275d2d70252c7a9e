"""EDGE: pages over HTTP: the viewer page with the settings that it asks for, from `control/pages`.

The pages are built from `web/` and travel in the wheel. `control.cli.demo` serves them beside a relay of its own.
"""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Callable, Mapping
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
        kind = mimetypes.guess_type(page.name)[0] or "application/octet-stream"
        charset = "; charset=utf-8" if kind.startswith("text/") else ""
        return Response(page.read_bytes(), content_type=kind + charset, headers=(("Cache-Control", "no-cache"),))

    return HttpServer(answer, PAGES_LIMITS)
