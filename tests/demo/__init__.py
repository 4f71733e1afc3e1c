"""The demonstration: the main job of the product, end to end, on a cluster, with what came of it.

``python -m tests.demo`` brings a cluster up (or takes the user's own), installs the chart, places the
same ten pods once by the default scheduler and once by Tailwise, drives MLPerf LoadGen against each and
prints who was right.
"""
