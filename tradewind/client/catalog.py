"""The two catalogues of a broadcast, written and read: MSF (track `catalog`) and hang (track `catalog.json`).

Both are made from one `media.Broadcast`, so that shaka-player, which reads MSF, and @moq/watch, which reads hang, see
the same renditions. A reader limits what it takes, raises `CatalogError`, and ignores fields that it does not know.

Sources: draft-ietf-moq-msf ("Catalog"), draft-ietf-moq-cmsf ("CMAF packaging"), draft-lcurley-moq-hang ("Catalog").
Initialization segments go into MSF's initDataList, which every player that we tried resolves; hang has them inline.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterator
from typing import Any

from tradewind.client.fmp4 import Kind
from tradewind.client.media import CMAF, Broadcast, Rendition

MSF_TRACK = b"catalog"
HANG_TRACK = b"catalog.json"
MSF_VERSION = "draft-01"

MAX_CATALOG_BYTES = 1 << 20
MAX_RENDITIONS = 256
MAX_NAME_CHARACTERS = 1024

_LANGUAGES = {"eng": "en", "fra": "fr", "deu": "de", "zho": "zh", "jpn": "ja", "kor": "ko", "spa": "es"}
_LARGEST_EXACT = 2**53 - 1
_SLOWEST_FRAMERATE = 0.01


class CatalogError(Exception):
    """A catalogue cannot be read; says what is wrong with it."""


# --- MSF ----------------------------------------------------------------------------------------------------------


def encode_msf(broadcast: Broadcast, generated_at_ms: int, *, complete: bool = False) -> bytes:
    """The independent catalogue that starts a group of the MSF catalogue track.

    `generated_at_ms`: wall time. `complete`: nothing will be published any more.
    """
    inits: dict[bytes, str] = {}
    tracks = []
    for rendition in broadcast.renditions:
        reference = inits.setdefault(rendition.init, f"init-{len(inits) + 1}") if rendition.init else None
        tracks.append(_msf_track(rendition, reference))
    root: dict[str, Any] = {"version": MSF_VERSION, "generatedAt": generated_at_ms}
    if complete:
        root["isComplete"] = True
    root["tracks"] = tracks
    if inits:
        root["initDataList"] = [
            {"id": name, "type": "inline", "data": base64.b64encode(init).decode()} for init, name in inits.items()
        ]
    return _dump(root)


def _msf_track(rendition: Rendition, init_reference: str | None) -> dict[str, Any]:
    track: dict[str, Any] = {
        "name": rendition.name,
        "packaging": rendition.packaging,
        "isLive": rendition.is_live,
        "role": rendition.kind.value,
        "renderGroup": rendition.render_group,
        "altGroup": rendition.alternatives,
        "initRef": init_reference,
        "codec": rendition.codec,
        "timescale": rendition.timescale or None,
        "bitrate": rendition.bitrate or None,
        "avgBitrate": rendition.average_bitrate or None,
        "lang": _LANGUAGES.get(rendition.language, rendition.language) or None,
    }
    if rendition.kind is Kind.VIDEO:
        track |= {
            "width": rendition.width or None,
            "height": rendition.height or None,
            "framerate": _number(rendition.framerate),
            "maxGopDuration": rendition.gop_ms or None,
            "maxGrpSapStartingType": 2 if rendition.packaging == CMAF else None,
        }
    else:
        track |= {
            "samplerate": rendition.sample_rate or None,
            "channelConfig": str(rendition.channels) if rendition.channels else None,
        }
    return {field: value for field, value in track.items() if value is not None}


class MsfReader:
    """Follows an MSF catalogue track: an independent catalogue starts each group, deltas change it."""

    __slots__ = ("_inits", "_tracks")

    def __init__(self) -> None:
        self._tracks: dict[str, dict[str, Any]] = {}
        self._inits: dict[str, bytes] = {}

    def receive(self, data: bytes) -> Broadcast:
        """Take the next object of the track; returns the whole catalogue as it stands then. Raises CatalogError."""
        root = _load(data)
        if "deltaUpdate" in root:
            self._apply(root)
        else:
            self._replace(root)
        renditions = (self._rendition(name, track) for name, track in self._tracks.items())
        return Broadcast(tuple(rendition for rendition in renditions if rendition is not None))

    def _replace(self, root: dict[str, Any]) -> None:
        version = root.get("version")
        # Draft 00 has the number 1; an unknown later draft cannot be told from a known one but by its name.
        if version != 1 and not (isinstance(version, str) and version in ("1", "draft-00", MSF_VERSION)):
            raise CatalogError(f"unknown MSF version {version!r}")
        tracks = {_track_name(track): track for track in _objects(_field(root, "tracks", list, []))}
        self._inits = _read_inits(root)
        self._tracks = tracks

    def _apply(self, root: dict[str, Any]) -> None:
        """Apply a delta update ("Delta updates"). Some publishers add initialization data to one; so be it."""
        tracks, inits = dict(self._tracks), self._inits | _read_inits(root)
        for operation in _objects(root["deltaUpdate"]):
            kind = _field(operation, "op", str)
            for track in _objects(_field(operation, "tracks", list)):
                self._apply_one(kind, track, tracks)
        if max(len(tracks), len(inits)) > MAX_RENDITIONS:
            raise CatalogError(f"more than {MAX_RENDITIONS} tracks")
        self._tracks, self._inits = tracks, inits

    @staticmethod
    def _apply_one(kind: str, track: dict[str, Any], tracks: dict[str, dict[str, Any]]) -> None:
        if kind == "add":
            tracks[_track_name(track)] = track
        elif kind == "remove":
            tracks.pop(_track_name(track), None)
        elif kind in ("clone", "update"):
            parent = _field(track, "parentName", str)
            if parent not in tracks:
                raise CatalogError(f"{kind} of unknown track {parent!r}")
            changed = tracks[parent] | {field: value for field, value in track.items() if field != "parentName"}
            if kind == "update":
                changed["name"] = parent
            tracks[_track_name(changed)] = changed
        else:
            raise CatalogError(f"unknown delta operation {kind!r}")

    def _rendition(self, name: str, track: dict[str, Any]) -> Rendition | None:
        """One track entry; None for what is neither video nor audio (timelines, captions, logs)."""
        kind = _kind(track)
        if kind is None:
            return None
        inline = _field(track, "initData", str, "")
        alternatives = _whole(track, "altGroup", -1)
        return Rendition(
            name,
            kind,
            _field(track, "codec", str, ""),
            _decode_base64(inline) if inline else self._inits.get(_field(track, "initRef", str, ""), b""),
            _field(track, "packaging", str, ""),
            timescale=_whole(track, "timescale"),
            width=_whole(track, "width"),
            height=_whole(track, "height"),
            framerate=_fraction(track, "framerate"),
            sample_rate=_whole(track, "samplerate"),
            channels=_channels(track.get("channelConfig")),
            language=_field(track, "lang", str, ""),
            bitrate=_whole(track, "bitrate"),
            average_bitrate=_whole(track, "avgBitrate"),
            gop_ms=_whole(track, "maxGopDuration"),
            render_group=_whole(track, "renderGroup", 1),
            alternatives=None if alternatives < 0 else alternatives,
            is_live=_field(track, "isLive", bool, True),
        )


def _read_inits(root: dict[str, Any]) -> dict[str, bytes]:
    """The inline entries of initDataList. Others are carried by properties, which no publisher we know of uses."""
    inline = (e for e in _objects(_field(root, "initDataList", list, [])) if e.get("type", "inline") == "inline")
    return {_field(entry, "id", str): _decode_base64(_field(entry, "data", str)) for entry in inline}


def _kind(track: dict[str, Any]) -> Kind | None:
    role = track.get("role")
    if role in ("video", "signlanguage"):
        return Kind.VIDEO
    if role in ("audio", "audiodescription"):
        return Kind.AUDIO
    if role is not None:
        return None
    # Without a role, which is optional, the sizes tell.
    return Kind.VIDEO if "width" in track else Kind.AUDIO if "samplerate" in track else None


def _channels(value: object) -> int:
    """MSF has the channels as a string, which may be a whole configuration that we cannot count."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 4 else 0


# --- hang ---------------------------------------------------------------------------------------------------------


def encode_hang(broadcast: Broadcast) -> bytes:
    """The one frame of a group of the hang catalogue track."""
    root: dict[str, Any] = {}
    video, audio = broadcast.of(Kind.VIDEO), broadcast.of(Kind.AUDIO)
    if video:
        largest = max(video, key=lambda rendition: rendition.width * rendition.height)
        root["video"] = {"renditions": {rendition.name: _hang_video(rendition) for rendition in video}}
        if largest.width and largest.height:
            root["video"]["display"] = {"width": largest.width, "height": largest.height}
    if audio:
        root["audio"] = {"renditions": {rendition.name: _hang_audio(rendition) for rendition in audio}}
    return _dump(root)


def _hang_video(rendition: Rendition) -> dict[str, Any]:
    fields = {
        "codec": rendition.codec,
        "container": _hang_container(rendition),
        "codedWidth": rendition.width or None,
        "codedHeight": rendition.height or None,
        "framerate": _number(rendition.framerate),
        "bitrate": rendition.bitrate or None,
        "optimizeForLatency": True,
        "jitter": math.ceil(1000 / rendition.framerate) if rendition.framerate >= _SLOWEST_FRAMERATE else None,
    }
    return {field: value for field, value in fields.items() if value is not None}


def _hang_audio(rendition: Rendition) -> dict[str, Any]:
    fields = {
        "codec": rendition.codec,
        "container": _hang_container(rendition),
        "sampleRate": rendition.sample_rate,
        "numberOfChannels": rendition.channels,
        "bitrate": rendition.bitrate or None,
    }
    return {field: value for field, value in fields.items() if value is not None}


def _hang_container(rendition: Rendition) -> dict[str, str]:
    if rendition.packaging != CMAF:
        return {"kind": rendition.packaging}
    return {"kind": CMAF, "init": base64.b64encode(rendition.init).decode()}


def decode_hang(data: bytes) -> Broadcast:
    """Read a hang catalogue. Renditions that live in another broadcast are left out. Raises CatalogError."""
    root = _load(data)
    renditions: list[Rendition] = []
    for kind in Kind:
        section = _field(root, kind.value, dict, {})
        entries = _field(section, "renditions", dict, {})
        if len(entries) > MAX_RENDITIONS:
            raise CatalogError(f"more than {MAX_RENDITIONS} renditions")
        here = [(name, entry) for name, entry in entries.items() if not _is_elsewhere(entry)]
        alternatives = list(Kind).index(kind) + 1 if len(here) > 1 else None
        renditions += (_hang_rendition(kind, name, entry, alternatives) for name, entry in here)
    return Broadcast(tuple(renditions))


def _is_elsewhere(entry: object) -> bool:
    return isinstance(entry, dict) and bool(entry.get("broadcast"))


def _hang_rendition(kind: Kind, name: str, entry: object, alternatives: int | None) -> Rendition:
    if not isinstance(entry, dict):
        raise CatalogError(f"rendition {name!r} is not an object")
    if not name or len(name) > MAX_NAME_CHARACTERS:
        raise CatalogError("a rendition's name is empty or too long")
    container = _field(entry, "container", dict, {"kind": "legacy"})
    packaging = _field(container, "kind", str)
    return Rendition(
        name,
        kind,
        _field(entry, "codec", str),
        _decode_base64(_field(container, "init", str)) if packaging == CMAF else b"",
        packaging,
        width=_whole(entry, "codedWidth"),
        height=_whole(entry, "codedHeight"),
        framerate=_fraction(entry, "framerate"),
        sample_rate=_whole(entry, "sampleRate"),
        channels=_whole(entry, "numberOfChannels"),
        bitrate=_whole(entry, "bitrate"),
        alternatives=alternatives,
    )


# --- JSON ---------------------------------------------------------------------------------------------------------


def _dump(root: dict[str, Any]) -> bytes:
    return json.dumps(root, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _load(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_CATALOG_BYTES:
        raise CatalogError(f"more than {MAX_CATALOG_BYTES} bytes")
    try:
        root = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CatalogError(f"not JSON: {error}") from error
    if not isinstance(root, dict):
        raise CatalogError("not a JSON object")
    return root


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _field(entry: dict[str, Any], name: str, kind: type, default: Any = None) -> Any:
    """A field that must be of `kind`; null counts as absent; absent raises unless there is a default."""
    value = entry.get(name)
    if value is None:
        if default is None:
            raise CatalogError(f"no {name}")
        return default
    if not isinstance(value, kind):
        raise CatalogError(f"{name} is not of type {kind.__name__}")
    return value


def _whole(entry: dict[str, Any], name: str, default: int = 0) -> int:
    value = entry.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LARGEST_EXACT:
        raise CatalogError(f"{name} is not a number from 0 to 2^53 - 1")
    return int(value)


def _fraction(entry: dict[str, Any], name: str) -> float:
    value = entry.get(name)
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LARGEST_EXACT:
        raise CatalogError(f"{name} is not a number from 0 to 2^53 - 1")
    return float(value)


def _objects(value: object) -> Iterator[dict[str, Any]]:
    if not isinstance(value, list) or len(value) > MAX_RENDITIONS:
        raise CatalogError(f"not an array of at most {MAX_RENDITIONS} objects")
    for entry in value:
        if not isinstance(entry, dict):
            raise CatalogError("an array holds something that is not an object")
        yield entry


def _track_name(track: dict[str, Any]) -> str:
    name = _field(track, "name", str)
    if not name or len(name) > MAX_NAME_CHARACTERS:
        raise CatalogError("a track's name is empty or too long")
    assert isinstance(name, str)
    return name


def _decode_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CatalogError(f"initialization data are not base64: {error}") from error


def _number(value: float) -> int | float | None:
    """30.0 as 30, 0 as absent."""
    return None if not value else int(value) if value == int(value) else value
