"""tipr: text-to-image person retrieval in four languages.

Names are loaded on first use, so that `import tipr` and `tipr --help` stay quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tipr.evaluation.evaluate import evaluate
    from tipr.gallery import Gallery, Hit
    from tipr.retrieval import Reranker, Retriever
    from tipr.training import train

__version__ = "0.1.0"

__all__ = ["Gallery", "Hit", "Reranker", "Retriever", "__version__", "evaluate", "train"]

_HOMES = {
    "Gallery": "tipr.gallery",
    "Hit": "tipr.gallery",
    "Reranker": "tipr.retrieval",
    "Retriever": "tipr.retrieval",
    "evaluate": "tipr.evaluation",
    "train": "tipr.training",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'tipr' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
