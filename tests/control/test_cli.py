"""The command line: what it prints, its exit codes, and that a relay it starts is that very process."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from control.cli import main as cli
from control.cli.main import relay_command, relay_environment, tradewind
from tradewind.contract.token import ALGORITHMS, parse_keys, peek, verify

ROOT = Path(__file__).resolve().parent.parent.parent


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(tradewind, arguments, input=stdin)


def started(*arguments: str, directory: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The console script as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "control.cli.main", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_lists_what_is_there() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in ("relay", "token", "version"):
        assert f"  {name} " in result.output
    assert run("nonsense").exit_code == 2


def test_a_command_that_is_not_installed_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.COMMANDS, "ghost", "control.cli.ghost:command")
    monkeypatch.setitem(cli.COMMANDS, "phantom", "no.such.package:command")
    assert "ghost" not in run("--help").output
    assert run("ghost").exit_code == run("phantom").exit_code == 2


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_that_is_there_explains_itself(name: str) -> None:
    if name in tradewind.list_commands(None):  # type: ignore[arg-type]
        result = run(name, "--help")
        assert result.exit_code == 0
        assert "Usage" in result.output


def test_version() -> None:
    found = json.loads(run("version", "-o", "json").output)
    assert set(found) == {"tradewind", "aioquic", "trio", "python", "drafts"}
    assert "moqt-20" in found["drafts"]
    assert "drafts     moqt-22 moqt-21" in run("version").output


def test_relay_settings_are_checked_by_the_relay_itself() -> None:
    good = started("relay", "config", "check", "--dev")
    assert (good.returncode, good.stdout) == (0, "ok\n")
    bad = started("relay", "config", "check", "--dev", "--lisen", "x")
    assert bad.returncode == 2
    assert "did you mean --listen?" in bad.stderr
    assert json.loads(started("relay", "config", "schema").stdout)["title"] == "Tradewind relay settings"


def test_a_folder_named_relay_is_not_the_relay(tmp_path: Path) -> None:
    (tmp_path / "relay").mkdir()
    (tmp_path / "relay/__init__.py").write_text("raise SystemExit('the wrong relay')\n")
    assert started("relay", "config", "check", "--dev", directory=tmp_path).returncode == 0


def test_run_hands_everything_on() -> None:
    done = started("relay", "run", "--dev", "--limits.sessions", "many", "--help-me")
    assert done.returncode == 2
    assert "limits.sessions: expected a whole number, not 'many'" in done.stderr
    assert "--help-me: no such flag" in done.stderr
    assert "python -m relay" in started("relay", "run", "--help").stdout


def test_the_relay_is_this_very_process(tmp_path: Path) -> None:
    """Signals and exit codes need no forwarding where there is nobody in between."""
    package = tmp_path / "relay"
    package.mkdir()
    (package / "__main__.py").write_text(
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print(os.getpid(), *sys.argv[1:], flush=True)\n"
        "signal.pause()\n"
    )
    (package / "__init__.py").touch()
    for name in ("control", "tradewind"):
        (tmp_path / name).symlink_to(ROOT / name)
    child = subprocess.Popen(
        [sys.executable, "-m", "control.cli.main", "relay", "run", "--dev"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline().split() == [str(child.pid), "--dev"]
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 7
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def test_where_a_relay_is_found() -> None:
    assert relay_command(("--dev",)) == [sys.executable, "-P", "-m", "relay", "--dev"]
    assert str(ROOT) in relay_environment().get("PYTHONPATH", str(ROOT)).split(os.pathsep)


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    private, public = tmp_path / "shop.jwk", tmp_path / "public.jwk"
    assert run("token", "key", "--out", str(private), "--public", str(public)).exit_code == 0
    return private, public


def test_a_token_from_key_to_verdict(keys: tuple[Path, Path]) -> None:
    private, public = keys
    made = run("token", "create", "--key", str(private), "--root", "live", "--put", "a", "--get", "", "--ttl", "2h")
    assert made.exit_code == 0
    token = made.output.strip()
    claims = verify(token, parse_keys(public.read_text()), peek(token).issued_at or 0)
    assert (claims.root, claims.put, claims.get) == ("live", ("a",), ("",))
    assert claims.expires_at is not None
    assert claims.issued_at is not None
    assert claims.expires_at - claims.issued_at == 7200
    shown = json.loads(run("token", "inspect", token, "--key", str(public), "-o", "json").output)
    assert (shown["publish"], shown["subscribe"], shown["verdict"]) == (["/live/a"], ["/live"], "good")
    assert "verdict" in run("token", "inspect", "-", stdin=token + "\n").output


def test_a_token_in_an_address(keys: tuple[Path, Path]) -> None:
    private, public = keys
    made = run("token", "create", "--key", str(private), "--get", "x", "--url", "https://relay.example:4443/live?a=1")
    address = made.output.strip()
    assert address.startswith("https://relay.example:4443/live?a=1&jwt=")
    assert run("token", "inspect", address, "--key", str(public)).exit_code == 0


def test_a_token_that_a_relay_would_refuse(keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, _ = keys
    token = run("token", "create", "--key", str(private), "--get", "", "--ttl", "0s").output.strip()
    result = run("token", "inspect", token, "--key", str(private))
    assert result.exit_code == 1
    assert "expired" in result.output
    other = tmp_path / "other.jwk"
    run("token", "key", "--out", str(other))
    assert "bad-signature" in run("token", "inspect", token, "--key", str(other)).output
    assert run("token", "inspect", "rubbish").exit_code == 1


def test_a_private_key_is_for_its_owner(keys: tuple[Path, Path]) -> None:
    private, public = keys
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert "d" in json.loads(private.read_text())
    assert "d" not in json.loads(public.read_text())
    assert run("token", "key", "--out", str(private)).exit_code == 1
    private.chmod(0o644)
    assert run("token", "key", "--out", str(private), "--force").exit_code == 0
    assert stat.S_IMODE(private.stat().st_mode) == 0o600


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if not name.startswith(("RS", "PS"))])
def test_keys_of_every_kind(tmp_path: Path, algorithm: str) -> None:
    out = tmp_path / "k.jwk"
    assert run("token", "key", "--algorithm", algorithm, "--id", "k1", "--out", str(out)).exit_code == 0
    key = parse_keys(out.read_text())[0]
    assert (key.algorithm, key.id, key.can_sign, key.can_verify) == (algorithm, "k1", True, True)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("create", "--key", "{public}", "--get", ""), 1, "no keys that can sign"),
        (("create", "--key", "{private}"), 2, "say --put or --get"),
        (("create", "--key", "{private}", "--get", "", "--ttl", "soon"), 2, "not a duration"),
        (("create", "--key", "{missing}"), 2, "does not exist"),
        (("create", "--key", "{text}", "--get", ""), 1, "neither JSON"),
        (("key", "--out", "{missing}/k.jwk"), 1, "No such file"),
        (("key", "--out", "{missing}", "--id", "a b"), 2, "say --id"),
        (("key", "--out", "{missing}", "--algorithm", "HS256", "--public", "{missing}2"), 2, "no public half"),
    ],
)
def test_mistakes_are_explained(
    keys: tuple[Path, Path], tmp_path: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    text = tmp_path / "text"
    text.write_text("not a key")
    places = {"private": keys[0], "public": keys[1], "missing": tmp_path / "missing", "text": text}
    result = run("token", *(argument.format(**places) for argument in arguments))
    assert result.exit_code == code
    assert says in result.output
