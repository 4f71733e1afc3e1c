"""What all documents of the API share: frozen, camelCase outside, unknown fields refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, PlainSerializer
from pydantic.alias_generators import to_camel


class Document(BaseModel):
    """A frozen value that reads and writes camelCase and refuses fields it does not know."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )


class StatusDocument(Document):
    """A document that an operator of another version may have written: unknown fields are passed over."""

    model_config = ConfigDict(extra="ignore")


def _rfc3339_seconds(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# metav1.Time: UTC, whole seconds. Anything finer would make two writes of one status differ.
Timestamp = Annotated[
    datetime, PlainSerializer(_rfc3339_seconds, return_type=str, when_used="json-unless-none")
]
