"""Collect, decide, apply.

How: one file a kind. In: keys from the queue. Out: patches, status, events. May import
tailwise.cluster and below.
"""
