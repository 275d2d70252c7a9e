"""The viewer page travels in the wheel: this builds it when a wheel is built and it is not there yet.

Where that cannot be done (no npm registry) the wheel is built without it and says so: all but the page works.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PageBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs `web/build`, except for an editable install: `make demo` builds the page itself."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        build = root / "web/build"
        if version == "editable" or not build.exists():
            return
        done = subprocess.run([str(build)], cwd=root, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
        if done.returncode and not (root / "control/pages/index.html").exists():
            print("the viewer page could not be built: this wheel goes without it", file=sys.stderr)
