"""The three sizes of a cluster."""

from enum import StrEnum


class Size(StrEnum):
    """How much of a cluster is there."""

    CONTROL_PLANE = "control-plane"
    SIMULATED = "simulated"
    REAL = "real"
