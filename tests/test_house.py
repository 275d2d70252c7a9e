"""House rules that a machine can hold: where code may not live, and what may not be committed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

FORBIDDEN_NAMES = {"utils.py", "util.py", "helpers.py", "helper.py", "common.py", "base.py", "misc.py"}

# A path of somebody's machine, or of where a program was built. Written in pieces so as not to find itself.
MACHINE_PATHS = re.compile(rb"(?<![\w.$}])/(?:work|home|root|Users|opt)/" + rb"[\w.-]+")
SECRETS = re.compile(rb"-----BEGIN (?:[A-Z]+ )?" + rb"PRIVATE KEY-----")
MAX_FILE_BYTES = 1_000_000


def tracked() -> list[Path]:
    """Files that git knows or would take; outside a checkout (a source archive) there is nothing to say."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        return []
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


FILES = tracked()


def test_no_room_for_leftovers() -> None:
    found = [path for path in FILES if path.name in FORBIDDEN_NAMES]
    assert not found, f"a function lives where its idea lives: {found}"


def test_no_machine_paths() -> None:
    allowed = {"Dockerfile"}
    found = [
        f"{path.relative_to(ROOT)}: {match.group().decode(errors='replace')}"
        for path in FILES
        if path.name not in allowed
        and (data := path.read_bytes()).find(b"\0") < 0
        and (match := MACHINE_PATHS.search(data))
    ]
    assert not found, found


def test_no_private_keys() -> None:
    """Outside the tests: a key that only tests trust keeps no secret."""
    found = [path for path in FILES if ROOT / "tests" not in path.parents and SECRETS.search(path.read_bytes())]
    assert not found, found


def test_no_large_files() -> None:
    found = [path for path in FILES if path.stat().st_size > MAX_FILE_BYTES]
    assert not found, found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"open('/" + b"home/ann/key.pem')", True),
        (b"/" + b"root/.cache", True),
        (b"https://example.com/home/ann", False),
        (b"/etc/tradewind/relay.toml", False),
        (b"$PWD/" + b"work/dir", False),
    ],
)
def test_what_counts_as_a_machine_path(text: bytes, found: bool) -> None:
    assert bool(MACHINE_PATHS.search(text)) == found
