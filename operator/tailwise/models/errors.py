"""Why a model could not be read: one class a reason, each with the field to look at and the way out."""

# ruff: noqa: N818 -- the classes are named as the reasons they become in a condition

from __future__ import annotations

from typing import ClassVar


class InspectionError(Exception):
    """A model could not be turned into a profile.

    ``reason`` is for programs (a condition's reason), ``field`` is where the user can change something,
    ``retryable`` says whether the same question may be answered differently later.
    """

    reason: ClassVar[str] = "InspectionFailed"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, field: str = "spec.model.url") -> None:
        super().__init__(message)
        self.message = message
        self.field = field

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class InvalidUrl(InspectionError):
    """The URL is malformed or its scheme is not one that can be read."""

    reason = "InvalidUrl"


class ModelUnreachable(InspectionError):
    """No answer: name not resolved, connection refused or reset, TLS not verified, or a server error."""

    reason = "ModelUnreachable"
    retryable = True


class ModelNotFound(InspectionError):
    """The store says there is nothing at this address."""

    reason = "ModelNotFound"
    retryable = True


class ModelForbidden(InspectionError):
    """The store wants credentials, or refuses these."""

    reason = "ModelForbidden"
    retryable = True


class ModelTruncated(InspectionError):
    """The file ends before the graph does, or the connection does."""

    reason = "ModelTruncated"
    retryable = True


class NotAModel(InspectionError):
    """The bytes are not an ONNX model, or the graph in them is invalid."""

    reason = "NotAModel"


class ModelTooLarge(InspectionError):
    """Reading on would pass a limit on bytes, nodes or nesting."""

    reason = "ModelTooLarge"


class AddressRefused(InspectionError):
    """The address belongs to a network that models are not read from unless allowed."""

    reason = "AddressRefused"


class DynamicShape(InspectionError):
    """An input axis has no size, neither in the file nor in the request."""

    reason = "DynamicShape"

    def __init__(self, message: str, *, field: str = "spec.model.inputShapes") -> None:
        super().__init__(message, field=field)


class DigestMismatch(InspectionError):
    """The file is not the one whose digest was given."""

    reason = "DigestMismatch"

    def __init__(self, message: str, *, field: str = "spec.model.sha256") -> None:
        super().__init__(message, field=field)


class InspectionTimeout(InspectionError):
    """The time allowed for reading and counting has passed."""

    reason = "InspectionTimeout"
    retryable = True


class InspectionCrashed(InspectionError):
    """The process that read the model ended without an answer (memory limit, or a fault in a parser)."""

    reason = "InspectionCrashed"


class InspectionJobFailed(InspectionError):
    """The Job that was to read the model under the workload's own identity gave no answer."""

    reason = "InspectionJobFailed"
    retryable = True


ERRORS: dict[str, type[InspectionError]] = {
    error.reason: error
    for error in (
        InspectionError,
        InvalidUrl,
        ModelUnreachable,
        ModelNotFound,
        ModelForbidden,
        ModelTruncated,
        NotAModel,
        ModelTooLarge,
        AddressRefused,
        DynamicShape,
        DigestMismatch,
        InspectionTimeout,
        InspectionCrashed,
        InspectionJobFailed,
    )
}


def error_for(reason: str, message: str, field: str) -> InspectionError:
    """Make the error of a reason again on the other side of a pipe."""
    return ERRORS.get(reason, InspectionError)(message, field=field)
