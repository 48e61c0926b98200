"""Evaluation of a model on a split: scores, confidence intervals, TREC files."""

from tipr.evaluation.bootstrap import bootstrap_intervals, identity_bootstrap
from tipr.evaluation.evaluate import Features, encode_split, evaluate, score_features
from tipr.evaluation.overlap import Overlap, language_overlap
from tipr.evaluation.results import Evaluation, Reranking, Score, Scores
from tipr.evaluation.trec import write_qrels, write_trec
from tipr.evaluation.two_stage import SecondStage, rerank_split

__all__ = [
    "Evaluation",
    "Features",
    "Overlap",
    "Reranking",
    "Score",
    "Scores",
    "SecondStage",
    "bootstrap_intervals",
    "encode_split",
    "evaluate",
    "identity_bootstrap",
    "language_overlap",
    "rerank_split",
    "score_features",
    "write_qrels",
    "write_trec",
]
