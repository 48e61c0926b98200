"""Training methods: a method is one file and one line in `METHODS`."""

from tipr.methods.base import Method, StepContext, StepOutput
from tipr.methods.clip_baseline import ClipBaseline
from tipr.methods.irra import Irra

METHODS: dict[str, type[Irra] | type[ClipBaseline]] = {
    "irra": Irra,
    "clip_baseline": ClipBaseline,
}
"""Name in a configuration -> class with `Config` and `build`."""

__all__ = ["METHODS", "ClipBaseline", "Irra", "Method", "StepContext", "StepOutput"]
