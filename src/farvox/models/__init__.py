"""Networks by name: the table of what there is, and how to build one."""

from farvox.models.registry import ModelFacts, create_model, list_models, model_facts

__all__ = ["ModelFacts", "create_model", "list_models", "model_facts"]
