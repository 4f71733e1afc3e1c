"""`tailwise bench` on the project's own cluster of real nodes: ``python -m tests.benchmark SCENARIO``."""
