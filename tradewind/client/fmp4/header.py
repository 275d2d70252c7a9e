"""The moov box: tracks, their defaults, and for each an initialization segment of its own. Serves `reader` only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tradewind.client.fmp4.boxes import Box, Fields, box, children, find, full_box, need
from tradewind.client.fmp4.codecs import Format, read_format
from tradewind.client.fmp4.limits import Limits
from tradewind.client.fmp4.model import Kind, MediaTrack, Tracks

NOT_FRAGMENTED = (
    "this MP4 is not fragmented: remux it with `ffmpeg -i FILE -c copy -movflags cmaf+frag_keyframe+empty_moov OUT.mp4`"
)

_FILE_TYPE = box("ftyp", b"iso6", bytes(4), b"iso6", b"cmfc", b"mp41")
_KINDS = {b"vide": Kind.VIDEO, b"soun": Kind.AUDIO}
_MAX_EDITS = 16


@dataclass(frozen=True, slots=True)
class Defaults:
    """A track's trex, and what its edit list adds to decode times."""

    kind: Kind
    duration: int
    size: int
    flags: int
    shift: int


@dataclass(frozen=True, slots=True)
class FileHeader:
    """A whole moov: what the reader tells its owner, and what it needs itself for fragments."""

    told: Tracks
    defaults: Mapping[int, Defaults]
    """By track id; only tracks that can be published."""


def read_file_header(moov: Box, limits: Limits) -> FileHeader:
    """Read a moov. Raises Mp4Error where it is broken, not fragmented, or holds too many tracks."""
    movie = need(moov, "mvhd")
    extends = find(moov, "mvex")
    if extends is None:
        raise moov.error(NOT_FRAGMENTED)
    extensions = _read_extensions(extends)
    tracks: list[MediaTrack] = []
    skipped: list[str] = []
    defaults: dict[int, Defaults] = {}
    traks = [child for child in children(moov) if child.type == "trak"]
    if len(traks) > limits.tracks:
        raise moov.error(f"more than {limits.tracks} tracks")
    for trak in traks:
        track = _read_track(trak, movie, extensions)
        if isinstance(track, str):
            skipped.append(track)
            continue
        if track.id in defaults:
            raise trak.error(f"track id {track.id} occurs twice")
        tracks.append(track)
        duration, size, flags, _ = extensions[track.id]
        shift = _read_edit_shift(trak, _movie_timescale(movie), track.timescale)
        defaults[track.id] = Defaults(track.kind, duration, size, flags, shift)
    if not tracks:
        raise moov.error("no track that can be published: " + ("; ".join(skipped) or "the file has none"))
    return FileHeader(Tracks(tuple(tracks), tuple(skipped)), defaults)


def _read_extensions(extends: Box) -> dict[int, tuple[int, int, int, Box]]:
    """(duration, size, flags, box) of each trex by track id."""
    found: dict[int, tuple[int, int, int, Box]] = {}
    for child in children(extends):
        if child.type == "trex":
            fields = child.fields()
            fields.full_box()
            track = fields.u32()
            fields.skip(4)
            found[track] = (fields.u32(), fields.u32(), fields.u32(), child)
    return found


def _read_track(trak: Box, movie: Box, extensions: Mapping[int, tuple[int, int, int, Box]]) -> MediaTrack | str:
    """The track, or words that say why it is left out."""
    number = _read_track_id(need(trak, "tkhd"))
    handler = need(trak, "mdia", "hdlr").fields()
    handler.full_box()
    handler.skip(4)
    kind = _KINDS.get(handler.raw(4))
    if kind is None:
        return f"track {number} is neither video nor audio"
    if number not in extensions:
        return f"track {number} has no fragments (no trex)"
    format_ = _read_sample_description(need(trak, "mdia", "minf", "stbl", "stsd"))
    if isinstance(format_, str) or format_.kind is not kind:
        return f"track {number}: {format_ if isinstance(format_, str) else 'its codec is not of its kind'}"
    timescale, language = _read_media_header(need(trak, "mdia", "mdhd"))
    return MediaTrack(
        number,
        kind,
        format_.codec,
        timescale,
        _single_track_header(movie, trak, extensions[number][3]),
        format_.width,
        format_.height,
        format_.sample_rate,
        format_.channels,
        language,
        format_.bitrate,
    )


def _read_sample_description(description: Box) -> Format | str:
    fields = description.fields()
    fields.full_box()
    entry = next(children(description, 8), None)
    if fields.u32() == 0 or entry is None:
        raise description.error("no sample entry")
    return read_format(entry)


def _read_track_id(header: Box) -> int:
    fields = header.fields()
    version, _ = fields.full_box()
    fields.skip(16 if version == 1 else 8)
    number = fields.u32()
    if number == 0:
        raise header.error("track id 0")
    return number


def _read_media_header(header: Box) -> tuple[int, str]:
    fields = header.fields()
    timescale = _skip_to_timescale(header, fields)
    packed = fields.u16()
    letters = [(packed >> shift & 0x1F) + 0x60 for shift in (10, 5, 0)]
    language = bytes(letters).decode() if all(0x61 <= c <= 0x7A for c in letters) else "und"
    return timescale, language


def _movie_timescale(movie: Box) -> int:
    return _skip_to_timescale(movie, movie.fields())


def _skip_to_timescale(header: Box, fields: Fields) -> int:
    """The timescale of an mvhd or mdhd, which begin alike; leaves the cursor after the duration."""
    version, _ = fields.full_box()
    fields.skip(16 if version == 1 else 8)
    timescale = fields.u32()
    fields.skip(8 if version == 1 else 4)
    if timescale == 0:
        raise header.error("timescale 0")
    return timescale


def _read_edit_shift(trak: Box, movie_timescale: int, timescale: int) -> int:
    """What the edit list adds to the track's decode times, in its own ticks.

    Empty edits delay the track and the first real edit's media time is cut off its start (encoder priming, or the
    composition offset of the first picture). Fragmented files use no others.
    """
    edits = find(trak, "edts", "elst")
    if edits is None:
        return 0
    fields = edits.fields()
    version, _ = fields.full_box()
    delay = 0
    for _ in range(min(fields.u32(), _MAX_EDITS)):
        duration = fields.u64() if version == 1 else fields.u32()
        media_time = fields.i64() if version == 1 else fields.i32()
        fields.skip(4)
        if media_time >= 0:
            return delay * timescale // movie_timescale - media_time
        delay += duration
    return delay * timescale // movie_timescale


def _single_track_header(movie: Box, trak: Box, extension: Box) -> bytes:
    """A header with this track alone, without its edit list: frames carry its effect in their times."""
    kept = [box(child.type, child.body) for child in children(trak) if child.type != "edts"]
    track = box("trak", *kept)
    return _FILE_TYPE + box("moov", box("mvhd", movie.body), track, box("mvex", box("trex", extension.body)))


def join_headers(headers: list[tuple[Box, Box]]) -> bytes:
    """One ftyp and moov from the moov boxes of several single-track headers, numbered 1, 2, ... in that order.

    `headers`: for each track its mvhd and its trak.
    """
    movie = headers[0][0]
    traks = [_renumber_trak(trak, number) for number, (_, trak) in enumerate(headers, 1)]
    extensions = [
        full_box("trex", 0, 0, *(value.to_bytes(4, "big") for value in (number, 1, 0, 0, 0)))
        for number in range(1, len(headers) + 1)
    ]
    return _FILE_TYPE + box("moov", box("mvhd", movie.body), *traks, box("mvex", *extensions))


def _renumber_trak(trak: Box, number: int) -> bytes:
    parts = []
    for child in children(trak):
        body = bytes(child.body)
        if child.type == "tkhd":
            at = 20 if body[0] == 1 else 12
            body = body[:at] + number.to_bytes(4, "big") + body[at + 4 :]
        parts.append(box(child.type, body))
    return box("trak", *parts)
