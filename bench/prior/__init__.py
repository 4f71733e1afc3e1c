"""Calibration and validation of the prior on this machine: measure, fit, validate."""
