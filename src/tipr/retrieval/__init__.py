"""The deployable part of a trained method, loaded from one folder of safetensors and JSON."""

from tipr.retrieval.reranker import Reranker
from tipr.retrieval.retriever import Retriever

__all__ = ["Reranker", "Retriever"]
