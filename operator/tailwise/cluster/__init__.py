"""Kubernetes in and out.

In: the API server's lists and watches (``reflector``), node hardware in ConfigMaps (``hardware``). Out:
requests whose outcome is a value (``apply``), events (``events``), the leader's Lease (``lease``).
``queue`` is what controllers take their keys from. May import tailwise.telemetry and below.
"""
