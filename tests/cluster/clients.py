"""kubernetes-asyncio clients and namespaces of test clusters, for tests."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kubernetes_asyncio import client, config

_POLL_SECONDS = 0.05
_SERVICE_ACCOUNT_SECONDS = 60.0


@asynccontextmanager
async def api_client(kubeconfig: Path) -> AsyncIterator[client.ApiClient]:
    """Give a client for a kubeconfig, closed at the end of the block."""
    configuration = client.Configuration()
    await config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
    async with client.ApiClient(configuration) as connected:
        yield connected


@asynccontextmanager
async def fresh_namespace(connected: client.ApiClient, prefix: str = "test") -> AsyncIterator[str]:
    """Give the name of a new namespace in which pods can be made; its deletion is not waited for."""
    core = client.CoreV1Api(connected)
    name = f"{prefix}-{secrets.token_hex(4)}"
    await core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name)))
    try:
        await _service_account(core, name)
        yield name
    finally:
        await core.delete_namespace(name)


async def _service_account(core: client.CoreV1Api, namespace: str) -> None:
    # A pod is refused until controller-manager has made the namespace's default service account.
    async with asyncio.timeout(_SERVICE_ACCOUNT_SECONDS):
        while True:
            accounts = await core.list_namespaced_service_account(namespace)
            if any(account.metadata.name == "default" for account in accounts.items):
                return
            await asyncio.sleep(_POLL_SECONDS)
