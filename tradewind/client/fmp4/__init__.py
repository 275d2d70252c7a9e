"""Fragmented MP4 in and out: what publishers read and what `tradewind subscribe -o` writes.

The strategy is to take files apart, not to pass their bytes on. `Reader` is fed a file or ffmpeg's pipe in any splits
and yields one `MediaTrack` per track, each with an initialization segment of its own, then single `Frame`s with every
default (trex, tfhd, first_sample_flags, edit list) resolved. `encode_chunk` puts frames back together as one CMAF
chunk whose fields stand in the chunk itself, because players look for them in different places: shaka-player ignores
trex, @moq/hang reads one trun. `Joiner` turns several single-track streams into one file.

Nothing here does I/O. Sources: ISO/IEC 14496-12 (boxes), -14 (esds), -15 (avcC, hvcC); ISO/IEC 23000-19 (CMAF).
"""

from tradewind.client.fmp4.boxes import Mp4Error
from tradewind.client.fmp4.limits import Limits
from tradewind.client.fmp4.model import Frame, Kind, MediaTrack, Tracks
from tradewind.client.fmp4.reader import Reader
from tradewind.client.fmp4.writer import Joiner, encode_chunk

__all__ = [
    "Frame",
    "Joiner",
    "Kind",
    "Limits",
    "MediaTrack",
    "Mp4Error",
    "Reader",
    "Tracks",
    "encode_chunk",
]
