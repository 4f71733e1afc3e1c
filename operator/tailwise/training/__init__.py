"""Datasets, training and evaluation of learned predictors.

In: Prometheus series or files of measurements. Out: a dataset, trained versions, their evaluation. Only
the training image imports it. May import tailwise.prediction and below.
"""
