"""Sample entries: which codec a track uses, as the string that players ask a browser about.

Serves `reader` only. Sources: ISO/IEC 14496-15 and RFC 6381 (avc1, hvc1), 14496-1 and -3 (esds, AudioSpecificConfig),
the AV1 and VP9 ISOBMFF bindings, the Opus and FLAC in ISOBMFF specifications.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tradewind.client.fmp4.boxes import Box, Fields, children
from tradewind.client.fmp4.model import Kind

_VISUAL_ENTRY_BYTES = 78
_AUDIO_ENTRY_BYTES = 28
_QUICKTIME_AUDIO_BYTES = {0: 0, 1: 16, 2: 36}

_SAMPLE_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
_CHANNELS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 8, 11: 7, 12: 8, 13: 24, 14: 8}
_ESCAPED_OBJECT_TYPE = 31
_SPECTRAL_REPLICATION = (5, 29)
_MPEG4_AUDIO = 0x40
_ESCAPED_RATE = 15


@dataclass(frozen=True, slots=True)
class Format:
    """What a sample entry says. Fields that do not fit the kind are 0."""

    kind: Kind
    codec: str
    width: int = 0
    height: int = 0
    sample_rate: int = 0
    channels: int = 0
    bitrate: int = 0


def read_format(entry: Box) -> Format | str:
    """Read one sample entry of an stsd; words where it cannot be published, e.g. because it is encrypted."""
    if entry.type in ("encv", "enca"):
        return "encrypted media is not supported"
    if entry.type in _VIDEO:
        return _read_video(entry)
    if entry.type in _AUDIO:
        return _read_audio(entry)
    return f"unsupported codec {entry.type!r}"


def _read_video(entry: Box) -> Format | str:
    fields = entry.fields()
    fields.skip(24)
    width, height = fields.u16(), fields.u16()
    boxes = {child.type: child for child in children(entry, _VISUAL_ENTRY_BYTES)}
    config_type, describe = _VIDEO[entry.type]
    config = boxes.get(config_type)
    if config is None:
        return f"{entry.type!r} without {config_type!r}: its codec configuration is not in the header"
    return Format(Kind.VIDEO, describe(entry.type, config.fields()), width, height, bitrate=_declared_bitrate(boxes))


def _read_audio(entry: Box) -> Format | str:
    fields = entry.fields()
    fields.skip(8)
    version = fields.u16()
    fields.skip(6)
    channels = fields.u16()
    fields.skip(6)
    sample_rate = fields.u32() >> 16
    if version not in _QUICKTIME_AUDIO_BYTES:
        raise entry.error(f"unknown audio sample entry version {version}")
    boxes = {child.type: child for child in children(entry, _AUDIO_ENTRY_BYTES + _QUICKTIME_AUDIO_BYTES[version])}
    config_type, describe = _AUDIO[entry.type]
    config = boxes.get(config_type)
    if config is None:
        return f"{entry.type!r} without {config_type!r}: its codec configuration is not in the header"
    stated = describe(config)
    return Format(
        Kind.AUDIO,
        stated.codec,
        sample_rate=stated.sample_rate or sample_rate,
        channels=stated.channels or channels,
        bitrate=_declared_bitrate(boxes) or stated.bitrate,
    )


def _declared_bitrate(boxes: dict[str, Box]) -> int:
    declared = boxes.get("btrt")
    if declared is None:
        return 0
    fields = declared.fields()
    fields.skip(4)
    maximum, average = fields.u32(), fields.u32()
    return average or maximum


# --- Video --------------------------------------------------------------------------------------------------------


def _describe_avc(entry: str, config: Fields) -> str:
    config.skip(1)
    return f"{entry}.{config.raw(3).hex()}"


def _describe_hevc(entry: str, config: Fields) -> str:
    config.skip(1)
    profile = config.u8()
    space = ("", "A", "B", "C")[profile >> 6]
    compatibility = int(f"{config.u32():032b}"[::-1], 2)
    constraints = config.raw(6).rstrip(b"\0")
    level = config.u8()
    tier = "H" if profile & 0x20 else "L"
    tail = "".join(f".{byte:X}" for byte in constraints)
    return f"{entry}.{space}{profile & 0x1F}.{compatibility:X}.{tier}{level}{tail}"


def _describe_vpx(entry: str, config: Fields) -> str:
    config.full_box()
    profile, level, depth = config.u8(), config.u8(), config.u8() >> 4
    return f"{entry}.{profile:02}.{level:02}.{depth:02}"


def _describe_av1(entry: str, config: Fields) -> str:
    config.skip(1)
    profile_level, bits = config.u8(), config.u8()
    depth = 12 if bits & 0x20 else 10 if bits & 0x40 else 8
    tier = "H" if bits & 0x80 else "M"
    return f"{entry}.{profile_level >> 5}.{profile_level & 0x1F:02}{tier}.{depth:02}"


_VIDEO: dict[str, tuple[str, Callable[[str, Fields], str]]] = {
    "avc1": ("avcC", _describe_avc),
    "avc3": ("avcC", _describe_avc),
    "hvc1": ("hvcC", _describe_hevc),
    "hev1": ("hvcC", _describe_hevc),
    "vp08": ("vpcC", _describe_vpx),
    "vp09": ("vpcC", _describe_vpx),
    "av01": ("av1C", _describe_av1),
}


# --- Audio --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Stated:
    """What a codec configuration says itself; 0 where the sample entry is to be believed."""

    codec: str
    sample_rate: int = 0
    channels: int = 0
    bitrate: int = 0


def _describe_mp4a(config: Box) -> _Stated:
    fields = config.fields()
    fields.full_box()
    object_type, average_bitrate, specific = 0, 0, b""
    while fields.left and not specific:
        tag, size = fields.u8(), _descriptor_size(config, fields)
        if tag == 0x03:  # ES_Descriptor: its children follow its own fields
            fields.skip(2)
            flags = fields.u8()
            fields.skip(2 if flags & 0x80 else 0)
            fields.skip(fields.u8() if flags & 0x40 else 0)
            fields.skip(2 if flags & 0x20 else 0)
        elif tag == 0x04:  # DecoderConfigDescriptor
            object_type = fields.u8()
            fields.skip(8)
            average_bitrate = fields.u32()
        elif tag == 0x05:  # DecoderSpecificInfo
            specific = fields.raw(size)
        else:
            fields.skip(size)
    if object_type != _MPEG4_AUDIO:
        return _Stated(f"mp4a.{object_type:02x}", bitrate=average_bitrate)
    audio_object, sample_rate, channels = _read_audio_specific_config(config, specific)
    return _Stated(f"mp4a.40.{audio_object}", sample_rate, channels, average_bitrate)


def _descriptor_size(config: Box, fields: Fields) -> int:
    size = 0
    for _ in range(4):
        byte = fields.u8()
        size = size << 7 | byte & 0x7F
        if not byte & 0x80:
            return size
    raise config.error("descriptor length of more than four bytes")


def _read_audio_specific_config(config: Box, data: bytes) -> tuple[int, int, int]:
    """(audio object type, sample rate, channels) of an AudioSpecificConfig."""
    bits = _Bits(config, data)
    stated = bits.object_type()
    sample_rate = bits.sample_rate()
    channels = _CHANNELS.get(bits.take(4), 0)
    if stated in _SPECTRAL_REPLICATION:
        sample_rate = bits.sample_rate()
    return stated, sample_rate, channels


class _Bits:
    __slots__ = ("_box", "_left", "_value")

    def __init__(self, box: Box, data: bytes) -> None:
        self._box = box
        self._value = int.from_bytes(data[:32], "big")
        self._left = 8 * len(data[:32])

    def take(self, count: int) -> int:
        if count > self._left:
            raise self._box.error("truncated AudioSpecificConfig")
        self._left -= count
        return self._value >> self._left & (1 << count) - 1

    def object_type(self) -> int:
        value = self.take(5)
        return 32 + self.take(6) if value == _ESCAPED_OBJECT_TYPE else value

    def sample_rate(self) -> int:
        index = self.take(4)
        if index == _ESCAPED_RATE:
            return self.take(24)
        return _SAMPLE_RATES[index] if index < len(_SAMPLE_RATES) else 0


def _describe_opus(config: Box) -> _Stated:
    fields = config.fields()
    fields.skip(1)
    return _Stated("opus", 48000, fields.u8())


def _describe_flac(config: Box) -> _Stated:
    fields = config.fields()
    fields.full_box()
    fields.skip(4 + 10)  # the metadata block's header; block and frame sizes of STREAMINFO
    packed = fields.u32()
    return _Stated("flac", packed >> 12, (packed >> 9 & 0x7) + 1)


_AUDIO: dict[str, tuple[str, Callable[[Box], _Stated]]] = {
    "mp4a": ("esds", _describe_mp4a),
    "Opus": ("dOps", _describe_opus),
    "fLaC": ("dfLa", _describe_flac),
    "ac-3": ("dac3", lambda _: _Stated("ac-3")),
    "ec-3": ("dec3", lambda _: _Stated("ec-3")),
}
