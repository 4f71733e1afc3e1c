"""The proof: the same pods placed by several policies, MLPerf LoadGen at each of them, and who was right.

In: a scenario file and a cluster, through kubectl. Out: a run directory with one file for each finished step
(placements, latencies, utilisation), a dataset that LatencyModels learn from, and a report. Statistics, the
oracle and the report are pure functions over what the steps wrote; only `runner` and what it calls touch the
cluster. Imports everything below; only the command line imports it.
"""
