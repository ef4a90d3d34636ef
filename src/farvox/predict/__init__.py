"""From scans to masks."""

from farvox.predict.memory import parse_memory
from farvox.predict.points import OpenScan, PointAnswers
from farvox.predict.predictor import Predictor, make_scorer
from farvox.predict.windows import stream_scores

__all__ = ["OpenScan", "PointAnswers", "Predictor", "make_scorer", "parse_memory", "stream_scores"]
