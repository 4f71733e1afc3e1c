"""Real Kubernetes clusters on a development machine, in three sizes: `control-plane`, `simulated`, `real`.

In: a cluster's name and size, and go.mod files that pin every binary. Out: a kubeconfig, daemons with logs.
`binaries` builds, `pki` signs, `processes` starts and ends daemons; `controlplane`, `simulated` and `real`
put them together. `python -m tests.cluster` is the command line; tests/conftest.py hands the same to pytest.
Imports nothing of the product but the values that describe a node's hardware.
"""
