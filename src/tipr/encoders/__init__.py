"""Encoders: an encoder is one file and one line in `ENCODERS`; transformers is imported only inside this package."""

from tipr.encoders.base import Encoded, Encoder
from tipr.encoders.beit_xlmr import BeitXlmrEncoder
from tipr.encoders.clip import ClipEncoder
from tipr.encoders.compact import CompactEncoder

ENCODERS: dict[str, type[ClipEncoder] | type[CompactEncoder] | type[BeitXlmrEncoder]] = {
    "clip": ClipEncoder,
    "compact": CompactEncoder,
    "beit_xlmr": BeitXlmrEncoder,
}
"""Name in a configuration -> class with `Config` and `build`."""

__all__ = ["ENCODERS", "BeitXlmrEncoder", "ClipEncoder", "CompactEncoder", "Encoded", "Encoder"]
