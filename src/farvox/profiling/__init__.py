"""What a network costs: parameters, multiply-adds, time, memory and receptive field."""

from farvox.profiling.api import Profile, profile

__all__ = ["Profile", "profile"]
