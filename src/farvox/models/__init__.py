"""Networks by name, and the information about them."""

from farvox._deprecated import renamed
from farvox.models.point_network import PointNetwork
from farvox.models.registry import (
    ModelInfo,
    check_network,
    count_parameters,
    create_model,
    create_on_meta,
    list_models,
    model_info,
    plan_options,
    register_model,
)

__all__ = [
    "ModelInfo",
    "PointNetwork",
    "check_network",
    "count_parameters",
    "create_model",
    "create_on_meta",
    "list_models",
    "model_info",
    "plan_options",
    "register_model",
]

__getattr__ = renamed(__name__, ModelFacts="ModelInfo", model_facts="model_info")
