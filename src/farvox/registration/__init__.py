"""Deformable registration on the frozen features of a trained network."""

from farvox.registration.api import Registration, register
from farvox.registration.metrics import RegistrationMetrics
from farvox.registration.options import RegisterOptions

__all__ = ["RegisterOptions", "Registration", "RegistrationMetrics", "register"]
