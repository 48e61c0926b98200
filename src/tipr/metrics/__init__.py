"""Retrieval metrics and the one ordering rule; torch and NumPy only, no configuration, no files, no logging."""

from tipr.metrics.chance import chance_metrics
from tipr.metrics.ranking import full_order, stable_similarity, top_k, two_stage_order
from tipr.metrics.retrieval import (
    QueryResults,
    RetrievalMetrics,
    query_results,
    query_results_from_features,
    query_results_two_stage,
    retrieval_metrics,
    retrieval_metrics_from_features,
)

__all__ = [
    "QueryResults",
    "RetrievalMetrics",
    "chance_metrics",
    "full_order",
    "query_results",
    "query_results_from_features",
    "query_results_two_stage",
    "retrieval_metrics",
    "retrieval_metrics_from_features",
    "stable_similarity",
    "top_k",
    "two_stage_order",
]
