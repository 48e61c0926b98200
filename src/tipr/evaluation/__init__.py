"""Evaluation of a model on a split: scores, confidence intervals, TREC files."""

from tipr.evaluation.bootstrap import bootstrap_intervals, identity_bootstrap
from tipr.evaluation.evaluate import Features, encode_split, evaluate, score_features
from tipr.evaluation.results import Evaluation, Score, Scores
from tipr.evaluation.trec import write_qrels, write_trec

__all__ = [
    "Evaluation",
    "Features",
    "Score",
    "Scores",
    "bootstrap_intervals",
    "encode_split",
    "evaluate",
    "identity_bootstrap",
    "score_features",
    "write_qrels",
    "write_trec",
]
