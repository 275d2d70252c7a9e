"""Pages of a controller: who may load them, and what is said where they are not built."""

from __future__ import annotations

from pathlib import Path

import pytest

from control import web
from control.api import Api
from tradewind.http1 import HttpServer, Request, Response


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {name: f"/* {name} */" for name in ("index.html", "map.html", "map.js", "map.css", "place.js")}
    for name, text in pages.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(web, "page_files", lambda: {f"/{name}": tmp_path / name for name in pages})


async def get(server: HttpServer, path: str) -> Response:
    return await server.handler(Request("GET", path, {}))


async def test_both_listeners_have_the_map_and_players_script(built: None) -> None:
    # A controller is not looked at for these.
    for server in Api(None).servers():  # type: ignore[arg-type]
        page = await get(server, "/map")
        assert (page.status, page.body, page.content_type) == (200, b"/* map.html */", "text/html; charset=utf-8")
        headers = dict(page.headers)
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Referrer-Policy"] == "no-referrer"
        script = await get(server, "/map.js")
        assert script.content_type.startswith("text/javascript") and script.body == b"/* map.js */"
        assert (await get(server, "/map.css")).content_type.startswith("text/css")
        assert dict((await get(server, "/place.js")).headers)["Access-Control-Allow-Origin"] == "*"
        assert (await get(server, "/map.html")).status == 404


async def test_pages_that_are_not_built_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise web.PagesMissing("not built")

    monkeypatch.setattr(web, "page_files", missing)
    page = await get(Api(None).servers()[0], "/map")  # type: ignore[arg-type]
    assert (page.status, page.body) == (404, b"this page is not built: run web/build\n")
