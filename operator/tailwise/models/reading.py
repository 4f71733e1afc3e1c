"""From a request to a profile, within the child process: open, walk, check the digest, count."""

from __future__ import annotations

import hashlib
import re

from tailwise.api.profile import ModelProfile
from tailwise.models.errors import DigestMismatch, ModelTooLarge
from tailwise.models.fetch import open_source
from tailwise.models.graph import GraphLimits, parse_skeleton, walk_graph
from tailwise.models.inspection import ChildRequest, http_access
from tailwise.models.profile import build_profile
from tailwise.models.sandbox import give_up_network
from tailwise.models.sources import ByteSource, HashingSource, sha256_of


def profile_of(request: ChildRequest) -> ModelProfile:
    """Read the model and count it; raises ``InspectionError``.

    All that needs the store comes first. Then the process gives up its network, and only then libraries
    see what was read.
    """
    limits = GraphLimits(
        read_bytes=request.read_mebibytes * 2**20,
        stream_bytes=request.stream_mebibytes * 2**20,
        kept_bytes=request.graph_mebibytes * 2**20,
    )
    source = open_source(
        request.url, http_access(request), allow_files=request.allow_files, environment=request.environment
    )
    try:
        if not source.seekable:
            source = HashingSource(source)
        serialized = walk_graph(source, limits)
        graph_digest = hashlib.sha256(serialized).hexdigest()
        digest, digest_source = _digest(source, graph_digest, request.sha256, limits)
    finally:
        source.close()
    give_up_network()
    profile = build_profile(
        parse_skeleton(serialized),
        request.input_shapes,
        request.batch_size,
        listed_operators=request.listed_operators,
        file_bytes=source.size or source.bytes_read,
        bytes_read=source.bytes_read,
    )
    return profile.model_copy(update={"digest": digest, "digest_source": digest_source})


def _digest(
    source: ByteSource, graph_digest: str, wanted: str | None, limits: GraphLimits
) -> tuple[str, str]:
    """What identifies the file, and where that comes from; checks a digest that was asked for.

    A digest of the spec is compared with the store's own where that is a sha256 (a hub's, a registry's).
    Elsewhere only reading the whole file can tell, so then it is read: an ETag is what a store likes.
    """
    identity = source.identity
    if wanted is None:
        return (identity.value, identity.source) if identity.value else (graph_digest, "GraphSha256")
    expected = wanted.removeprefix("sha256:").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", expected):
        raise DigestMismatch("a sha256 has 64 hexadecimal digits")
    actual, kind = identity.sha256, identity.source
    if actual is None:
        actual, kind = sha256_of(source, limits.stream_bytes), "Sha256"
    if actual is None:
        raise ModelTooLarge(
            f"the file is larger than {limits.stream_bytes // 2**20} MiB, too large to be read whole for it",
            field="spec.model.sha256",
        )
    if actual != expected:
        raise DigestMismatch(f"the file's sha256 is {actual}, not {expected}")
    return actual, kind
