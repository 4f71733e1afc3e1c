"""kubernetes-asyncio clients and namespaces of test clusters, for tests."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kubernetes_asyncio import client, config


@asynccontextmanager
async def api_client(kubeconfig: Path) -> AsyncIterator[client.ApiClient]:
    """Give a client for a kubeconfig, closed at the end of the block."""
    configuration = client.Configuration()
    await config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
    async with client.ApiClient(configuration) as connected:
        yield connected


@asynccontextmanager
async def fresh_namespace(connected: client.ApiClient, prefix: str = "test") -> AsyncIterator[str]:
    """Give the name of a new namespace; it is deleted afterwards, which nobody waits for."""
    core = client.CoreV1Api(connected)
    name = f"{prefix}-{secrets.token_hex(4)}"
    await core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name)))
    try:
        yield name
    finally:
        await core.delete_namespace(name)
