"""From scans to masks."""

from farvox.prediction.coarse_to_fine import Samples
from farvox.prediction.memory import parse_memory
from farvox.prediction.points import PointPredictions, PreparedScan
from farvox.prediction.predictor import PointSampling, Predictor, make_predict_fn, parse_point_stride
from farvox.prediction.sliding_window import sliding_window_inference

__all__ = [
    "PreparedScan",
    "PointPredictions",
    "Predictor",
    "Samples",
    "PointSampling",
    "make_predict_fn",
    "parse_memory",
    "parse_point_stride",
    "sliding_window_inference",
]
