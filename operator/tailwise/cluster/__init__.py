"""Kubernetes in and out.

In: the API server's answers. Out: requests to it: reflectors, server-side apply, patches, events, leases. Turns objects into the
domain's frozen values and decisions into requests. May import tailwise.telemetry and below.
"""
