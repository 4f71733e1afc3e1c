"""Prometheus in, the operator's own metrics out.

In: Prometheus' answers. Out: utilisation, observed latency, each with its time; and the operator's own
metrics. May import tailwise.training and below.
"""
