"""Networks by name: the table of what there is, and how to build one."""

from farvox.models.point_network import PointNetwork
from farvox.models.registry import ModelInfo, count_parameters, create_model, list_models, model_info

__all__ = ["ModelInfo", "PointNetwork", "count_parameters", "create_model", "list_models", "model_info"]
