"""Settings: one schema for file, environment and flags, every problem at once, and docs that cannot fall behind."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import settings
from relay.__main__ import main
from relay.config import ALIASES, RELAY, Config, parse_neighbour, warnings
from relay.forwarding.book import ForwardingSettings
from relay.limits import LimitSettings
from relay.rooms.rates import RoomSettings
from tradewind.moqt.profiles import BROWSER_ORDER, NATIVE_ORDER
from tradewind.moqt.settings import SessionSettings
from tradewind.quic.config import QuicSettings
from tradewind.settings import values, wording
from tradewind.settings.schema import ConfigError, Key
from tradewind.settings.values import Address

KEYS, SECTIONS, load = RELAY.keys, RELAY.sections, RELAY.load


def config(*flags: str, environment: dict[str, str] | None = None, toml: str | None = None) -> Config:
    return load(("--dev", *flags), environment, None if toml is None else ("relay.toml", toml)).config


def problems(*flags: str, environment: dict[str, str] | None = None, toml: str | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(flags, environment, None if toml is None else ("relay.toml", toml))
    return [str(problem) for problem in caught.value.problems]


def test_flag_beats_environment_beats_file_beats_default() -> None:
    toml, environment = "[cache]\nmax_groups = 2", {"TRADEWIND_CACHE__MAX_GROUPS": "3"}
    assert config().cache.max_groups == 32
    assert config(toml=toml).cache.max_groups == 2
    assert config(toml=toml, environment=environment).cache.max_groups == 3
    assert config("--cache.max_groups", "4", toml=toml, environment=environment).cache.max_groups == 4


def test_everything_wrong_is_said_at_once() -> None:
    said = problems(
        *("--lisen", "x", "--limits.sesions=3", "--cert", "a.pem", "--cache.max_bytes", "5furlongs", "--ops"),
        environment={
            "TRADEWIND_RELEY__LISTEN": "1",
            "TRADEWIND_LIMITS__SESSIONS": "-1",
            "TRADEWIND_INTEROP_RELAY": "not a setting",
            "TRADEWIND_PLACEMENT__X": "not the relay's",
        },
        toml='[relay]\nlisten=4\ndrafts=[20,17]\n[chache]\nx=1\n[log]\nlevel="inf"\nlevle=1\n',
    )
    expected = [
        "relay.toml: chache: no such section; did you mean cache?",
        "relay.toml: log.levle: no such key; did you mean log.level?",
        "environment: TRADEWIND_RELEY__LISTEN: no such variable; did you mean TRADEWIND_RELAY__LISTEN?",
        "flag: --lisen: no such flag; did you mean --listen?",
        "flag: --limits.sesions: no such flag; did you mean --limits.sessions?",
        'flag: --ops: expected an address such as "127.0.0.1:9464", or "off"',
        'relay.toml: relay.listen: expected addresses such as "0.0.0.0:4443" or "[::]:4443", not 4',
        "relay.toml: relay.drafts: expected drafts out of 22, 21, 20, 18, 16, not [20, 17] (no draft 17 here)",
        "environment TRADEWIND_LIMITS__SESSIONS: limits.sessions: expected a whole number, not '-1'",
        "flag --cache.max_bytes: cache.max_bytes: expected a size such as \"512MiB\" of at least 1MiB, not '5furlongs'",
        "relay.toml: log.level: expected one of debug, info, warning, error, not 'inf'",
        "flag --cert: tls.key: expected too: a certificate and its key go together",
        "settings: auth.keys: expected key files, or auth.public paths: nobody could do anything",
    ]
    assert len(said) == len(expected), said
    for line, beginning in zip(said, expected, strict=True):
        assert line.startswith(beginning)


@pytest.mark.parametrize(
    ("flags", "toml", "says"),
    [
        ((), None, "tls.cert: expected a certificate"),
        ((), None, "auth.keys: expected key files"),
        (("--key", "k"), None, "tls.cert: expected too"),
        (("--dev",), "not toml", "relay.toml: not TOML"),
        (("--dev",), "schema = 2", "schema: expected 1"),
        (("--dev",), "relay = 1", "relay: no such section"),
        (("--dev", "--cache.max_bytes", "1MiB"), None, "cache.max_bytes_per_track: expected at most"),
        (("--dev", "--drafts", "20", "--relay.browser_drafts", "16"), None, "relay.browser_drafts: expected at least"),
        (("--dev", "--quic.congestion_control", "bbr"), None, "expected one of rate, cubic, reno"),
        (("--dev", "--quic.session_window_bytes", "64KiB"), None, "quic.stream_window_bytes: expected at most"),
        (("--dev", "--drafts", ""), None, "relay.drafts: expected"),
        (("--dev", "listen"), None, "listen: no such flag"),
    ],
)
def test_contradictions(flags: tuple[str, ...], toml: str | None, says: str) -> None:
    assert any(says in line for line in problems(*flags, toml=toml))


def test_a_bad_file_does_not_hide_what_flags_got_wrong() -> None:
    assert len(problems("--dev", "--limits.sessions", "many", toml="[")) == 2


@pytest.mark.parametrize(
    ("flags", "key", "value"),
    [
        (("--listen", "127.0.0.1:4443"), "relay.listen", (Address("127.0.0.1", 4443),)),
        (("--listen", "127.0.0.1:1,[::1]:2"), "relay.listen", (Address("127.0.0.1", 1), Address("::1", 2))),
        (
            ("--listen", "127.0.0.1:1", "--listen=[0::1]:2"),
            "relay.listen",
            (Address("127.0.0.1", 1), Address("::1", 2)),
        ),
        (("--drafts", "20,16"), "relay.drafts", (20, 16)),
        (("--drafts", "moqt-20"), "relay.drafts", (20,)),
        (("--ops", "off"), "ops.listen", None),
        (("--ops.certificate_hash=no",), "ops.certificate_hash", False),
        (("--relay.webtransport",), "relay.webtransport", True),
        (("--cache.max_bytes", "1.5 GiB"), "cache.max_bytes", 3 * 2**29),
        (("--cache.max_age_s", "2m"), "cache.max_age_s", 120.0),
        (("--turn.budget_s", "4ms"), "turn.budget_s", 0.004),
        (("--cert", "c", "--key", "k"), "tls.cert", "c"),
        (("--relay.quirks", ""), "relay.quirks", ()),
        (("--public", "a,b", "--public", "/"), "auth.public", ("a", "b", "/")),
    ],
)
def test_values(flags: tuple[str, ...], key: str, value: Any) -> None:
    section, name = key.split(".")
    assert getattr(getattr(config(*flags), section), name) == value


@pytest.mark.parametrize(
    "address", ["4443", ":4443", "127.0.0.1", "127.0.0.1:70000", "::1:4443", "[::1]", "[x]:1", "a b:1", "host:-1"]
)
def test_bad_addresses(address: str) -> None:
    assert problems("--dev", "--listen", address)


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (values.number(), True),
        (values.number(), 1.5),
        (values.number(1, 5), 6),
        (values.size(), []),
        (values.size(), "x"),
        (values.duration(), True),
        (values.duration(0, 10), "11s"),
        (values.duration(), float("nan")),
        (values.flag(), "maybe"),
        (values.text("x", "[a-z]+"), "A"),
        (values.file(), 3),
        (values.texts("x"), [1]),
        (values.choices(["a"], "x", empty=False), []),
    ],
)
def test_kinds_refuse(kind: values.Kind, raw: Any) -> None:
    with pytest.raises(ValueError):
        kind.read(raw)


def test_dev_has_defaults_of_its_own() -> None:
    assert all(address.is_loopback for address in config().relay.listen)
    assert config().limits.sessions_per_address == 0
    assert config("--limits.sessions_per_address", "9").limits.sessions_per_address == 9
    served = load(["--cert", "c", "--key", "k", "--public", "demo"]).config
    assert served.limits.sessions_per_address == 256
    assert config(environment={"TRADEWIND_RELAY__DEV": "true"}).relay.dev


def test_warnings() -> None:
    assert warnings(config()) == []
    assert "ops.listen" in warnings(config("--ops", "0.0.0.0:9464"))[0]
    assert "relay.dev" in warnings(config("--listen", "0.0.0.0:4443"))[0]
    assert "auth.public" in warnings(load(["--cert", "c", "--key", "k", "--public", "/"]).config)[0]


def test_the_docs_are_a_file_of_defaults() -> None:
    assert tomllib.loads(wording.docs(RELAY))["schema"] == 1
    uncommented = "\n".join(
        line.removeprefix("# ") if line.partition(" = ")[0].removeprefix("# ").isidentifier() else line
        for line in wording.docs(RELAY).splitlines()
        if not line.startswith("#   ")
    )
    read = load((), {}, ("docs", uncommented.replace("dev = false", "dev = true"))).config
    assert read == dataclasses.replace(Config(), relay=dataclasses.replace(Config().relay, dev=True))
    for key in KEYS.values():
        assert key.variable in wording.docs(RELAY)


def test_what_is_shown_reads_back_as_itself() -> None:
    loaded = load(["--dev", "--listen", "127.0.0.1:1"], {"TRADEWIND_NODE__ID": "hkg-1"}, ("f", "[cache]\nmax_groups=9"))
    shown = wording.effective(RELAY, loaded)
    assert load((), {}, ("shown", shown)).config == loaded.config
    for line in (
        'listen = ["127.0.0.1:1"]  # flag --listen',
        'id = "hkg-1"  # environment TRADEWIND_NODE__ID',
        "max_groups = 9  # f",
        "sessions_per_address = 0  # default of --dev",
    ):
        assert line in shown.splitlines()


def test_the_schema_knows_every_key() -> None:
    sections = wording.json_schema(RELAY)["properties"]
    assert set(sections) == {"schema", *SECTIONS}
    assert {f"{s}.{k}" for s in SECTIONS for k in sections[s]["properties"]} == set(KEYS)
    json.dumps(wording.json_schema(RELAY))


@pytest.mark.parametrize("key", KEYS.values(), ids=str)
def test_every_default_is_a_value_one_could_write(key: Key) -> None:
    for default in (key.default, key.dev_default):
        assert key.kind.read(key.kind.write(default)) == default
    assert key.help.endswith(".")


def test_usage_names_the_short_flags() -> None:
    assert all(flag in wording.usage(RELAY) and key in KEYS for flag, key in ALIASES.items())


@given(st.lists(st.text(max_size=12) | st.sampled_from([*ALIASES, *(f"--{key}" for key in KEYS)]), max_size=6))
def test_any_flags_are_read_or_explained(flags: list[str]) -> None:
    try:
        load(flags)
    except ConfigError as error:
        assert error.problems


class Reads:
    """Stands for a section, or the whole: what is read of it is remembered."""

    def __init__(self, real: Any, name: str, seen: set[str]) -> None:
        self._real, self._name, self._seen = real, name, seen

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._real, attribute)
        name = f"{self._name}.{attribute}".lstrip(".")
        if dataclasses.is_dataclass(value):
            return Reads(value, name, self._seen)
        self._seen.add(name)
        return value


FOR_THE_RUN_FILE = {
    *("node.id", "node.region", "relay.listen", "ops.listen", "ops.certificate_hash"),
    *("tls.cert", "tls.key", "tls.poll_s", "auth.keys", "drain.grace_s", "log.level", "log.format"),
    *("turn.budget_s", "turn.datagrams", "turn.handshakes"),
    *("mesh.ca", "mesh.cert", "mesh.key", "mesh.neighbours"),
    *("node.state", "questions.answer", "questions.plain_http", "questions.locations"),
    *("rooms.enabled", "rooms.path", "rooms.max_bytes"),
}
"""What is about assembling and running rather than about one room."""
FOR_THE_MESH = {key for key in KEYS if key.startswith("mesh.")}
"""What `relay.run` reads once it joins a relay to its mesh."""


def test_every_setting_reaches_somebody() -> None:
    seen: set[str] = set()
    reading: Any = Reads(config(), "", seen)
    for tell in (
        settings.quic_settings,
        settings.session_settings,
        settings.forwarding_settings,
        settings.access_settings,
        settings.limit_settings,
        settings.placing_settings,
        settings.room_settings,
        settings.quirks,
    ):
        tell(reading)
    assert seen | FOR_THE_RUN_FILE | FOR_THE_MESH == set(KEYS)
    relay = Path(settings.__file__).parent
    run = (relay / "run.py").read_text() + (relay / "mesh/files.py").read_text()
    told = {key for key in FOR_THE_RUN_FILE if f"config.{key}" in run or (key.startswith("mesh.") and key in run)}
    assert told == FOR_THE_RUN_FILE


def test_what_rooms_are_told() -> None:
    told = config("--drafts", "20,16", "--public", "a", "--auth.public_subscribe", "b", "--limits.sessions", "7")
    quic = settings.quic_settings(told)
    assert (quic.protocols, quic.browser_protocols) == (("moqt-20", "moqt-16"), ("moqt-16", "moqt-20"))
    access = settings.access_settings(told)
    assert (access.public_publish, access.public_subscribe, access.anonymous) == (("a",), ("a", "b"), True)
    assert settings.limit_settings(told).sessions == 7


def test_defaults_are_the_rooms_own() -> None:
    told = load(["--cert", "c", "--key", "k", "--public", "demo"]).config
    assert settings.limit_settings(told) == LimitSettings()
    assert settings.quic_settings(told) == QuicSettings(protocols=NATIVE_ORDER, browser_protocols=BROWSER_ORDER)
    assert settings.forwarding_settings(told) == ForwardingSettings()
    assert settings.session_settings(told) == SessionSettings()
    assert settings.room_settings(told) == RoomSettings()


def test_config_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "relay.toml"
    file.write_text("[relay]\ndev = true\n")
    assert main(["config", "check", "-c", str(file)]) == 0
    assert capsys.readouterr().out == "ok\n"
    file.write_text("[relay]\ndev = true\nlissen = 1\n")
    assert main(["config", "check", "-c", str(file)]) == 2
    assert "did you mean relay.listen?" in capsys.readouterr().err
    assert main(["config", "show", "--dev", "--ops", "0.0.0.0:1"]) == 0
    shown = capsys.readouterr()
    assert "dev = true  # flag --dev" in shown.out
    assert "warning: ops.listen" in shown.err
    assert main(["config", "check", "-c", str(tmp_path / "missing.toml")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert main(["-c"]) == 2
    for arguments, code in ((["config", "docs"], 0), (["config", "schema"], 0), (["--help"], 0), (["config"], 2)):
        assert main(arguments) == code


def test_bad_settings_end_the_process_before_anything_starts() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "relay", "--lissen", "x"],
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        check=False,
        env={},
    )
    assert done.returncode == 2
    assert "--lissen: no such flag; did you mean --listen?" in done.stderr
    assert done.stdout == ""


MESHED = ("--mesh.name=shop", "--mesh.ca=a", "--mesh.cert=b", "--mesh.key=c", "--mesh.public_uri=https://r:443")


def test_a_relay_of_a_mesh_needs_all_of_its_papers_and_one_alone_none() -> None:
    assert config().mesh.name == "" and config().mesh.controllers == ()
    made = config(*MESHED, "--mesh.controllers=c1:4480,[::1]:4480", "--mesh.neighbours=fra-2=192.0.2.7:4443").mesh
    assert made.controllers == (Address("c1", 4480), Address("::1", 4480))
    assert parse_neighbour(made.neighbours[0]) == ("fra-2", Address("192.0.2.7", 4443))
    assert problems("--dev", "--mesh.name=shop") == [
        "flag --mesh.name: mesh.ca: expected a PEM file; `tradewind cert` makes it",
        "flag --mesh.name: mesh.cert: expected a PEM file; `tradewind cert` makes it",
        "flag --mesh.name: mesh.key: expected a PEM file; `tradewind cert` makes it",
        "flag --mesh.name: mesh.public_uri: expected where viewers reach this relay",
    ]
    assert problems("--dev", "--mesh.controllers=c1:4480") == [
        "flag --mesh.controllers: mesh.name: expected the mesh's name beside mesh.controllers"
    ]
    assert problems("--dev", *MESHED, "--mesh.neighbours=Fra=h:1") == [
        "flag --mesh.neighbours: mesh.neighbours: expected ID=HOST:PORT, not 'Fra=h:1'"
    ]
