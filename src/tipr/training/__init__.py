"""Training: `train` runs a `RunConfig` and fills a run folder."""

from tipr.training.run import TrainResult, load_config, train
from tipr.training.run_config import RunConfig

__all__ = ["RunConfig", "TrainResult", "load_config", "train"]
