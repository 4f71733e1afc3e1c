"""A profile, a node's hardware and its load become a predicted latency.

In: ``ModelProfile``, ``NodeHardware``, utilisation, CPU limit, threads, load. Out: P50, P90, a bound and
where they come from; and tables over utilisation so that a decision over thousands of nodes is a gather.
May import ``tailwise.api``, ``tailwise.domain`` and ``tailwise.models``.
"""
