"""Networks by name: the table of what there is, and how to build one."""

from farvox.models.point_network import PointNetwork
from farvox.models.registry import ModelFacts, count_parameters, create_model, list_models, model_facts

__all__ = ["ModelFacts", "PointNetwork", "count_parameters", "create_model", "list_models", "model_facts"]
