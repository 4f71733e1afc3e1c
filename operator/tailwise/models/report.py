"""An inspection's answer as a pod's termination message, which holds 4,096 bytes.

JSON where that fits, else the same compressed; what is still too long loses its longest lists, the last
entries first, never a figure.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from pathlib import Path

from tailwise.api.profile import ModelProfile
from tailwise.models.errors import InspectionError, InspectionJobFailed, error_for
from tailwise.models.inspection import ChildAnswer, InspectionRequest, inspect

MOST_BYTES = 4096
_PLAIN_BYTES = 3072
_MARK = b"zlib:"
_MOST_UNPACKED_BYTES = 2**20


def report(answer: ChildAnswer) -> bytes:
    """The message of an answer, at most 4,096 bytes."""
    text = _json(answer)
    if len(text) <= _PLAIN_BYTES:
        return text
    while len(packed := _MARK + base64.b85encode(zlib.compress(text, 9))) > MOST_BYTES:
        shorter = _shortened(answer)
        if shorter == answer:
            return _json(ChildAnswer(reason=InspectionJobFailed.reason, message="the answer is too long"))
        answer, text = shorter, _json(shorter)
    return packed


def answer_of(message: str) -> ModelProfile:
    """The profile in a message; raises the ``InspectionError`` that is in it instead."""
    raw = message.encode()
    try:
        if raw.startswith(_MARK):
            inflate = zlib.decompressobj()
            raw = inflate.decompress(base64.b85decode(raw.removeprefix(_MARK)), _MOST_UNPACKED_BYTES)
        answer = ChildAnswer.model_validate_json(raw)
    except (ValueError, zlib.error, binascii.Error) as error:
        said = " ".join(message.split())[:300]
        raise InspectionJobFailed(f"the Job's message is no answer: {said or 'it is empty'}") from error
    if answer.profile is None:
        raise error_for(answer.reason, answer.message, answer.field or "spec.model.url")
    return answer.profile


def _json(answer: ChildAnswer) -> bytes:
    return answer.model_dump_json(by_alias=True, exclude_defaults=True).encode()


def _shortened(answer: ChildAnswer) -> ChildAnswer:
    """The same with half of what may be long; what was left out is still counted."""
    profile = answer.profile
    if profile is None:
        return answer.model_copy(update={"message": answer.message[: len(answer.message) // 2]})
    changes: dict[str, object] = {}
    if len(profile.unresolved) > 1:
        changes["unresolved"] = profile.unresolved[: len(profile.unresolved) // 2]
    elif len(profile.operators) > 1:
        most = list(profile.operators.items())[: len(profile.operators) // 2]
        changes["operators"] = dict(most)
    elif profile.unresolved:
        changes["unresolved"] = ()
    return answer.model_copy(update={"profile": profile.model_copy(update=changes)})


def write_report(file: Path, request: InspectionRequest) -> int:
    """Inspect and write the message, an error's too: exit code 0 says that there is an answer."""
    try:
        answer = ChildAnswer(profile=inspect(request))
    except InspectionError as error:
        answer = ChildAnswer(reason=error.reason, field=error.field, message=error.message)
    file.write_bytes(report(answer))
    return 0
