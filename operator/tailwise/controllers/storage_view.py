"""Claims, volumes and classes of storage, followed from the first pod on that needs them.

Most clusters that serve models have none that matter here, and a cluster may have ten thousand: nothing is
listed before a pod with a claim waits for its node. From then on they are followed like everything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from tailwise.cluster.client import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES, Client
from tailwise.cluster.reflector import Key, Listener, Reflector, Selection
from tailwise.domain.objects import Pod
from tailwise.domain.parse_storage import claim_from_object, storage_class_from_object, volume_from_object
from tailwise.domain.storage import Claim, ClaimKey, StorageClass, StorageState, Volume

_LOGGER = logging.getLogger(__name__)

# For how long decisions wait for the first lists; after that their pods are tried again once they are there.
_FIRST_LISTS_SECONDS = 10.0


class StorageView:
    """Keeps ``state`` true once ``read_for`` was asked; ``changed``: pods may fit that did not."""

    def __init__(
        self,
        client: Client,
        state: StorageState,
        changed: Callable[[], None],
        restarted: Callable[[str, str], None],
    ) -> None:
        self._state = state
        self._changed = changed
        self._task: asyncio.Task[None] | None = None
        self._wait_until = 0.0
        self._read = asyncio.Event()

        def claim_put(_: Key, *versions: Claim) -> None:
            if versions[-1] != versions[0] or len(versions) == 1:
                state.put_claim(versions[-1].key, versions[-1])
                changed()

        def volume_put(key: Key, *versions: Volume) -> None:
            if versions[-1] != versions[0] or len(versions) == 1:
                state.put_volume(key.name, versions[-1])
                changed()

        def class_put(key: Key, *versions: StorageClass) -> None:
            state.put_class(key.name, versions[-1])
            changed()

        def claim_removed(key: Key, _: Claim) -> None:
            state.put_claim(ClaimKey(key.namespace, key.name), None)

        self._reflectors: tuple[Reflector[Any], ...] = (
            Reflector(
                client,
                Selection(PERSISTENT_VOLUME_CLAIMS),
                claim_from_object,
                Listener(claim_put, claim_put, claim_removed),
                restarted=restarted,
            ),
            Reflector(
                client,
                Selection(PERSISTENT_VOLUMES),
                volume_from_object,
                Listener(volume_put, volume_put, lambda key, _: state.put_volume(key.name, None)),
                restarted=restarted,
            ),
            Reflector(
                client,
                Selection(STORAGE_CLASSES),
                storage_class_from_object,
                Listener(class_put, class_put, lambda key, _: state.put_class(key.name, None)),
                restarted=restarted,
            ),
        )

    async def read_for(self, pod: Pod) -> None:
        """Wait until what the pod's claims need has been read; gives up soon, and the filters say so."""
        if not pod.claims or self._state.complete:
            return
        if self._task is None:
            _LOGGER.info("pod %s/%s uses claims: following volumes", pod.namespace, pod.name)
            self._task = asyncio.create_task(self._follow(), name="storage")
            self._wait_until = asyncio.get_running_loop().time() + _FIRST_LISTS_SECONDS
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._wait_until):
                await self._read.wait()

    async def read(self) -> None:
        """Take the lists once, with no watches after them.

        Raises as ``Reflector.read``.
        """
        for reflector in self._reflectors:
            await reflector.read()
        self._state.complete = True

    def close(self) -> None:
        """End the watches."""
        if self._task is not None:
            self._task.cancel()

    async def _follow(self) -> None:
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.run(), name=f"reflector {reflector.selection.resource.plural}")
            for reflector in self._reflectors:
                await reflector.synced.wait()
            self._state.complete = True
            self._read.set()
            self._changed()
