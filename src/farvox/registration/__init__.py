"""Deformable registration on the frozen features of a trained network."""

from farvox.registration.registration import RegisterOptions, Registration, register

__all__ = ["RegisterOptions", "Registration", "register"]
