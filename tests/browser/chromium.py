"""Debian's Chromium, driven through `driver.mjs`, and a web server for the pages that it opens."""

from __future__ import annotations

import functools
import http.server
import json
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ANSWERS_WITHIN_S = 30.0


class Page:
    """One tab, in a context of its own."""

    def __init__(self, browser: Browser, number: int) -> None:
        self._browser = browser
        self._number = number

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise's when it settles."""
        return self._browser.order(evaluate=expression, page=self._number).get("value")

    def screenshot(self, file: Path) -> None:
        """Write what the page shows as PNG."""
        self._browser.order(screenshot=str(file), page=self._number)

    def console(self) -> list[str]:
        """Everything the page has said on its console."""
        return list(self._browser.order(console=True, page=self._number)["value"])

    def fill(self, selector: str, text: str) -> None:
        """Type a text into a field."""
        self._browser.order(fill=selector, text=text, page=self._number)

    def press(self, selector: str, key: str) -> None:
        """Press a key in a field."""
        self._browser.order(press=selector, key=key, page=self._number)

    def close(self) -> None:
        """Close the tab."""
        self._browser.order(close=True, page=self._number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Browser:
    """A headless Chromium."""

    def __init__(self, node: Path) -> None:
        self._process = subprocess.Popen(
            [node, HERE / "driver.mjs"], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def open(self, url: str, **options: Any) -> Page:
        """Open a page; options are `width`, `height`, `scale`, `scheme` ("dark") and `init`, a script to run first."""
        return Page(self, self.order(open=url, **options)["page"])

    def order(self, **words: Any) -> dict[str, Any]:
        """Give the driver one order and return its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the browser's driver ended"
        answer: dict[str, Any] = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer

    def close(self) -> None:
        """Close Chromium and its driver."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(ANSWERS_WITHIN_S)
        self._process.stdout.close()


class Site:
    """Serves the viewer page at `/` with a config.json of the test's making, and the players' pages at `/players/`."""

    def __init__(self, players: Path) -> None:
        self.config: dict[str, Any] = {}
        handler = functools.partial(_Handler, players, lambda: self.config)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def url(self, path: str) -> str:
        """The address of a page."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{path}"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, players: Path, config: Callable[[], dict[str, Any]], *arguments: Any) -> None:
        self._players = players
        self._config = config
        super().__init__(*arguments, directory=str(ROOT / "control/pages"))

    def translate_path(self, path: str) -> str:
        name = path.split("?", maxsplit=1)[0]
        if name.startswith("/players/"):
            return str(self._players / Path(name).name)
        return super().translate_path(path)

    def do_GET(self) -> None:
        if self.path.split("?")[0] not in ("/config.json", "/certificate.sha256"):
            super().do_GET()
            return
        config = self._config()
        text = json.dumps(config) if "config" in self.path else config["relay"]["certificate_sha256"]
        self.send_response(200)
        self.send_header("content-type", "application/json" if "config" in self.path else "text/plain")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *_: object) -> None:
        pass
