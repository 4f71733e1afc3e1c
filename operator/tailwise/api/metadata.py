"""The part of metav1.ObjectMeta that Tailwise reads."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from tailwise.api.document import StatusDocument

# A DNS subdomain (RFC 1123), as names of most objects are.
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"


LabelValue = Annotated[str, Field(max_length=63)]
# All annotations of an object together may have 256 KiB.
AnnotationValue = Annotated[str, Field(max_length=262_144)]


class ObjectMetadata(StatusDocument):
    """Metadata of an object, as the API server keeps it; the rest of it is passed over."""

    name: str = Field(description="Name of the object.")
    namespace: str = Field("", description="Its namespace; empty for cluster-scoped kinds.")
    uid: str = Field("", description="Its identity, which no successor of the same name shares.")
    generation: int = Field(0, description="Counts the changes of its spec.")
    resource_version: str = Field("", description="Changes with each write.")
    labels: dict[str, str] = Field(default_factory=dict, description="Labels.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Annotations.")
    creation_timestamp: datetime | None = Field(None, description="When it was made.")
    deletion_timestamp: datetime | None = Field(None, description="When its deletion was asked for.")
