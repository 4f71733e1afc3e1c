"""A dataset of measured latencies, made on real nodes: ``python -m bench.dataset``.

In: models of tests/models with random weights, nodes.yaml. Out: rows in the schema of docs/dataset.md, with
each query's latency, in one Parquet file. Real kubelets, the example's model server, MLPerf LoadGen as its
client, a neighbour that computes; nothing is simulated. Imports anything; nothing of the product imports it.
"""
