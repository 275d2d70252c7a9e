"""Fixtures for tests in a browser: Chromium, the pages, a live broadcast and the relay between them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser.chromium import HERE, ROOT, Browser, Site
from tests.interop.conftest import Relays, between, meshes, moq_rs, relays  # noqa: F401 fixtures
from tests.interop.peer_process import PeerProcess
from tests.interop.relay_process import STAND_IN, RelayProcess

NAMESPACE = "live/demo"
GOP_FRAMES = 12
CLIPS = {"high": ("640x360", "1100k"), "low": ("320x180", "200k")}
Publish = Callable[..., PeerProcess]


@pytest.fixture(scope="session")
def node() -> Path:
    """The node program: the machine's, or the one from PyPI's wheel."""
    if not (HERE / "node_modules/playwright-core").exists() or shutil.which("chromium") is None:
        pytest.skip("no Chromium or no node packages: run scripts/install-peers")
    found = subprocess.run([ROOT / "scripts/node"], capture_output=True, text=True, check=True)
    return Path(found.stdout.strip()) / "node"


@pytest.fixture(scope="session")
def chromium(node: Path) -> Iterator[Browser]:
    """A headless Chromium for all tests of the run."""
    browser = Browser(node)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def players(node: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the players' pages, ready to be served."""
    directory = tmp_path_factory.mktemp("players")
    for file in (HERE / "players").iterdir():
        shutil.copy(file, directory)
    modules = HERE / "node_modules"
    shutil.copy(modules / "shaka-player/dist/shaka-player.experimental.js", directory / "shaka-player.js")
    sources = [str(HERE / "players" / name) for name in ("watch.js", "placed_watch.js")]
    bundle = [str(node), str(modules / "esbuild/bin/esbuild"), *sources, "--bundle", "--format=esm"]
    bundle += ["--target=es2022", "--log-level=error", f"--outdir={directory}", "--allow-overwrite"]
    subprocess.run(bundle, cwd=HERE, check=True)
    return directory


@pytest.fixture(scope="session")
def relay(relays: Relays) -> RelayProcess:  # noqa: F811 the fixture
    """A relay with every draft on offer; the stand-in, which does not know what browsers can do, has 16 alone."""
    return relays(16) if STAND_IN else relays()


@pytest.fixture(scope="session")
def site(players: Path, relay: RelayProcess) -> Iterator[Site]:
    """The pages, configured for the relay."""
    subprocess.run([ROOT / "web/build"], check=True)
    served = Site(players)
    served.config = {
        "relay": {"url": relay.url("https"), "name": "test-1", "certificate_sha256": relay.certificate_sha256()},
        "namespace": NAMESPACE,
    }
    yield served
    served.close()


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Some seconds of a moving picture in two sizes, a key frame every half second, one frame a fragment.

    Shaka begins at the live edge, wherever in a group that is, and shows nothing before the next key frame: groups of a
    second would not let it join within one.
    """
    directory = tmp_path_factory.mktemp("clips")
    files = {}
    for name, (size, bitrate) in CLIPS.items():
        files[name] = directory / f"{name}.mp4"
        command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", f"testsrc2=size={size}:rate=25"]
        command += ["-frames:v", str(8 * GOP_FRAMES)]
        command += ["-c:v", "libx264", "-profile:v", "baseline", "-preset", "veryfast", "-pix_fmt", "yuv420p"]
        command += [
            "-x264-params",
            f"keyint={GOP_FRAMES}:min-keyint={GOP_FRAMES}:scenecut=0:bframes=0",
            "-b:v",
            bitrate,
        ]
        command += ["-maxrate", bitrate, "-bufsize", bitrate]
        command += ["-movflags", "cmaf+frag_every_frame+empty_moov+default_base_moof+skip_trailer", str(files[name])]
        subprocess.run(command, check=True)
    return files


@pytest.fixture
def publish(moq_rs: None, relay: RelayProcess, clips: dict[str, Path]) -> Iterator[Publish]:  # noqa: F811 the fixture
    """`publish()` starts a publisher of the broadcast, or of another one, and returns when it is announced.

    It goes to `relay`, or to the one that is named.
    """
    running: list[PeerProcess] = []

    def start(namespace: str = NAMESPACE, to: RelayProcess = relay) -> PeerProcess:
        script = str(HERE / "peers/publish.py")
        peer = PeerProcess(script, to.url("quic"), namespace, str(clips["high"]), str(clips["low"]))
        running.append(peer)
        peer.wait_for(lambda words: "announced" in words)
        return peer

    yield start
    for peer in running:
        peer.__exit__(None, None, None)
