"""What kopf hosts: the two kinds, startup, cleanup and the probe; each handler passes a key on.

Only ``on.event`` handlers, which make kopf write nothing to objects: neither annotations nor finalizers.
Everything else of the operator is ``tailwise.controllers.runtime``, which comes in as ``memo.runtime``.
"""

from __future__ import annotations

from typing import Any

import kopf

from tailwise.api.labels import GROUP, VERSION

# Bookmarks come each minute; a watch silent for longer is dead though its socket may not know.
_INACTIVITY_SECONDS = 75
_WATCH_SECONDS = 290
_EXIT_SECONDS = 20


def configure(settings: kopf.OperatorSettings) -> None:
    """Keep kopf to what it is here for."""
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.watching.inactivity_timeout = _INACTIVITY_SECONDS
    settings.watching.server_timeout = _WATCH_SECONDS
    settings.watching.client_timeout = _WATCH_SECONDS + 30
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = 500
    settings.networking.request_timeout = 60
    settings.process.ultimate_exiting_timeout = _EXIT_SECONDS


@kopf.on.startup(errors=kopf.ErrorsMode.PERMANENT)
async def startup(memo: Any, settings: kopf.OperatorSettings, **_: Any) -> None:
    """Connect, begin to watch, and stand for leader; a failure ends the process."""
    configure(settings)
    await memo.runtime.start()


@kopf.on.cleanup()
async def cleanup(memo: Any, **_: Any) -> None:
    """End work in order: workers, then the Lease, then connections."""
    await memo.runtime.stop()


@kopf.on.event(GROUP, VERSION, "inferenceworkloads")
async def inference_workload(event: Any, memo: Any, **_: Any) -> None:
    """Take note of a workload and have it looked at."""
    memo.runtime.saw_workload(event["type"], event["object"])


@kopf.on.event(GROUP, VERSION, "latencymodels")
async def latency_model(event: Any, memo: Any, **_: Any) -> None:
    """Take note of a latency model and have it looked at."""
    memo.runtime.saw_latency_model(event["type"], event["object"])


# Permanent: kopf would otherwise try a failed probe again for minutes before it answers at all.
@kopf.on.probe(id="silenceSeconds", errors=kopf.ErrorsMode.PERMANENT)
async def fresh(memo: Any, **_: Any) -> float:
    """How long the API server has not been heard; raises when that is too long, or a part has ended."""
    return float(memo.runtime.check_health())
