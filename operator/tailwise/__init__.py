"""Tailwise places inference pods on the node where their tail latency will meet its SLO.

A pod's way through the packages: ``cluster`` sees it, ``controllers`` collects profile, capacity and
load, ``domain`` filters, scores and decides, ``cluster`` patches it, ``telemetry`` watches what came of
it. Imports go one way (api, domain, models, prediction, training, telemetry, cluster, controllers,
handlers, cli) and a contract checks it.
"""
