"""Tests of reading models and counting their operators."""
