"""Leader election on a ``coordination.k8s.io`` Lease.

As in client-go: a candidate takes the Lease when it is free, its own, or was not renewed for its duration
as seen by the candidate's own clock (clocks of two machines are never compared). The leader renews it; one
that could not for ``renew_deadline_seconds`` has lost it and must end before another may begin, which is
why the deadline is shorter than the duration. kubernetes-asyncio's LeaderElection starts the leader's work
as a task that nobody watches; here ``keep`` is a coroutine whose end is the loss.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp

from tailwise.cluster import apply
from tailwise.cluster.client import LEASES, ApiError, Client

_LOGGER = logging.getLogger(__name__)
_UNAVAILABLE = (ApiError, aiohttp.ClientError, TimeoutError, OSError)


class LeaseLostError(Exception):
    """Another process may lead now: whoever sees this must end at once."""


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """How long a leader is believed, how long it believes itself, and how often it renews.

    Shorter than client-go's 15, 10 and 2 s: another leads at most ``duration_seconds`` and one retry after a
    leader died, and pods are to wait no longer than 15 s for it.
    """

    duration_seconds: int = 12
    renew_deadline_seconds: float = 8.0
    retry_seconds: float = 1.5


class Lease:
    """One candidate for one Lease. ``acquire``, then ``keep`` beside the work, at last ``release``."""

    def __init__(
        self, client: Client, namespace: str, name: str, identity: str, times: LeaseTimes | None = None
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._times = times or LeaseTimes()
        self._seen: tuple[str, float] = ("", 0.0)  # resource version last seen, and when it was first seen
        self._held = False

    @property
    def held(self) -> bool:
        """Whether this candidate leads."""
        return self._held

    async def acquire(self) -> None:
        """Wait until this candidate leads; an API server that does not answer is waited for."""
        announced = ""
        while True:
            try:
                async with asyncio.timeout(self._times.renew_deadline_seconds):
                    holder = await self._try()
            except _UNAVAILABLE as error:
                _LOGGER.warning("lease %s/%s: %s", self._namespace, self._name, error or type(error).__name__)
            else:
                if self._held:
                    _LOGGER.info("lease %s/%s: leading as %s", self._namespace, self._name, self._identity)
                    return
                if holder != announced:
                    _LOGGER.info("lease %s/%s: held by %s, waiting", self._namespace, self._name, holder)
                    announced = holder
            await asyncio.sleep(self._times.retry_seconds)

    async def keep(self) -> None:
        """Renew until cancelled.

        Raises:
            LeaseLostError: another holds it, or it could not be renewed in time.
        """
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(self._times.retry_seconds)
            left = self._times.renew_deadline_seconds - (time.monotonic() - renewed)
            try:
                async with asyncio.timeout(max(left, 0)):
                    began = time.monotonic()
                    holder = await self._try()
            except _UNAVAILABLE as error:
                _LOGGER.warning("lease %s/%s not renewed: %s", self._namespace, self._name, error)
            else:
                if not self._held:
                    raise LeaseLostError(f"lease {self._namespace}/{self._name} is held by {holder}")
                renewed = began
            if time.monotonic() - renewed >= self._times.renew_deadline_seconds:
                self._held = False
                raise LeaseLostError(
                    f"lease {self._namespace}/{self._name} not renewed for "
                    f"{self._times.renew_deadline_seconds:.0f} s"
                )

    async def release(self) -> None:
        """Give the Lease up so that the next candidate need not wait; failures only cost that wait."""
        if not self._held:
            return
        self._held = False
        try:
            stored = await self._read()
            if stored is not None and stored["spec"].get("holderIdentity") == self._identity:
                # Absent, not empty: the API server refuses an empty holder.
                spec = {k: v for k, v in stored["spec"].items() if k != "holderIdentity"}
                await apply.replace(self._client, LEASES, {**stored, "spec": spec})
        except _UNAVAILABLE as error:
            _LOGGER.info("lease %s/%s not released: %s", self._namespace, self._name, error)

    async def _try(self) -> str:
        """Take or renew the Lease if that is due; returns who holds it afterwards."""
        stored = await self._read()
        if stored is None:
            metadata = {"name": self._name, "namespace": self._namespace}
            written = await apply.create(self._client, LEASES, self._manifest(metadata, {}))
            self._held = written.done
            return self._identity if written.done else "another candidate"
        spec = stored.get("spec") or {}
        holder = str(spec.get("holderIdentity") or "")
        version = stored["metadata"]["resourceVersion"]
        now = time.monotonic()
        if version != self._seen[0]:
            self._seen = (version, now)
        expired = now - self._seen[1] > float(spec.get("leaseDurationSeconds") or 0)
        if holder not in ("", self._identity) and not expired:
            self._held = False
            return holder
        written = await apply.replace(self._client, LEASES, self._manifest(stored["metadata"], spec))
        if written.done:
            self._held = True
            self._seen = (written.object["metadata"]["resourceVersion"], time.monotonic())
            return self._identity
        if holder != self._identity:
            self._held = False
            return "another candidate"
        # Somebody else wrote (an annotation, say): look again before giving up what may still be ours.
        raise TimeoutError(written.message)

    async def _read(self) -> dict[str, Any] | None:
        try:
            return await self._client.request(
                "GET", LEASES.path(self._namespace, self._name), timeout_seconds=5
            )
        except ApiError as error:
            if error.reason == "NotFound":
                return None
            raise

    def _manifest(self, metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        ours = spec.get("holderIdentity") == self._identity
        transitions = int(spec.get("leaseTransitions") or 0)
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": dict(metadata),
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": self._times.duration_seconds,
                "acquireTime": spec.get("acquireTime") if ours else now,
                "renewTime": now,
                "leaseTransitions": transitions if ours or not spec else transitions + 1,
            },
        }
