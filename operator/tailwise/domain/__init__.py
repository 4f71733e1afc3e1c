"""Decisions as pure functions over frozen values.

In: a snapshot of the cluster, hardware, utilisation with its age, predicted latencies as arrays. Out:
verdicts, placements, assumptions and the words for them. No input or output, no clock, no randomness of
its own: ``now`` is always an argument. May import ``tailwise.api`` only.
"""
