"""Prometheus in, the operator's own metrics out.

In: Prometheus' answers (``prometheus`` asks, ``queries`` says what). Out: utilisation of all nodes
(``utilisation``) and latency of served requests (``observed``), each value with the time it was sampled; and
the operator's own metrics (``metrics``). Nothing known is None or an absent key, never 0.
May import tailwise.training and below.
"""
