"""Segmentation of scans with trained networks."""

from farvox.prediction.coarse_to_fine import Samples
from farvox.prediction.files import Prediction
from farvox.prediction.memory import parse_memory
from farvox.prediction.points import PointPredictions, PreparedScan
from farvox.prediction.predictor import PointStride, Predictor, make_predict_fn, parse_point_stride
from farvox.prediction.sliding_window import sliding_window_inference

__all__ = [
    "PointPredictions",
    "PointStride",
    "Prediction",
    "Predictor",
    "PreparedScan",
    "Samples",
    "make_predict_fn",
    "parse_memory",
    "parse_point_stride",
    "sliding_window_inference",
]
