"""kubectl, as the benchmark runs it."""

from tailwise.benchmark.kubectl import Kubectl, KubectlError, wait_for

__all__ = ["Kubectl", "KubectlError", "wait_for"]
