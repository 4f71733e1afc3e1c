"""Collect, decide, apply: one file a kind.

In: keys from queues, and ``ClusterView``, the copy of the cluster that reflectors keep. Out: patches of
pods, Deployments, statuses and events through ``tailwise.cluster``. Whatever is worth deciding is decided
by ``tailwise.domain`` or by pure functions here. May import tailwise.cluster and below.
"""
