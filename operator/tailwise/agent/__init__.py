"""Reads and measures the node this process runs on.

In: /proc, /sys and the host's cgroup tree (any root can be given), and short probes of the processor. Out:
``NodeHardware``, printed or applied as the node's ConfigMap. May import ``tailwise.api`` and
``tailwise.cluster``; nothing but ``tailwise.cli`` imports it.
"""
