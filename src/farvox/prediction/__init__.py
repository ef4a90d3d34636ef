"""From scans to masks."""

from farvox.prediction.coarse_to_fine import Samples
from farvox.prediction.memory import parse_memory
from farvox.prediction.points import OpenScan, PointAnswers
from farvox.prediction.predictor import Predictor, Sampling, make_scorer, parse_sampling
from farvox.prediction.sliding_window import stream_scores

__all__ = [
    "OpenScan",
    "PointAnswers",
    "Predictor",
    "Samples",
    "Sampling",
    "make_scorer",
    "parse_memory",
    "parse_sampling",
    "stream_scores",
]
