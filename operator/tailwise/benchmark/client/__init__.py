"""The program that asks; a ConfigMap carries it into the cluster, beside the example's own client.

Nothing of Tailwise is imported here, and nothing here is imported by Tailwise: its image holds MLPerf
LoadGen, numpy and examples/serving's `inference_client`.
"""
