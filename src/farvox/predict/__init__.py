"""From scans to masks."""

from farvox.predict.memory import parse_memory
from farvox.predict.points import OpenScan, PointAnswers
from farvox.predict.predictor import Predictor, Sampling, make_scorer, parse_sampling
from farvox.predict.refine import Samples
from farvox.predict.windows import stream_scores

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
