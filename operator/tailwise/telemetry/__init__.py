"""Prometheus in, the operator's own metrics out.

In: Prometheus' answers (``prometheus`` asks, ``queries`` and ``server_metrics`` say what). Out: utilisation
of all nodes (``utilisation``) and latency of served requests (``observed``), each value with the time it was
sampled; rows of the past (``dataset``, by a document that says what names stood for, ``join``); and the
operator's own metrics (``metrics``). Nothing known is None or an absent key, never 0.
May import tailwise.training and below.
"""
