"""Analysis of finished runs: ablation tables over many of them, and what a run took for relations."""
