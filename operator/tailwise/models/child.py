"""The process that reads one untrusted model: ``python -m tailwise.models.child MEMORY CPU FILES``.

Limits on address space (MiB), CPU time (s) and open files come first, then one request from standard
input, then the imports that it needs, and one answer to standard output. Everything it can expect becomes
an answer with a reason; anything else ends it, and the parent says so.
"""

from __future__ import annotations

import os
import resource
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tailwise.models.inspection import ChildAnswer, ChildRequest


def main() -> int:
    """Set the limits, read the request, answer."""
    memory, cpu, files = (int(word) for word in sys.argv[1:4])
    _limit(resource.RLIMIT_AS, memory * 2**20)
    _limit(resource.RLIMIT_CPU, cpu)
    _limit(resource.RLIMIT_NOFILE, files)
    _limit(resource.RLIMIT_CORE, 0)
    # The operator's own work comes first on a busy node.
    os.nice(10)

    from tailwise.models.errors import InspectionCrashed, InspectionError  # noqa: PLC0415 -- limits come first
    from tailwise.models.inspection import ChildAnswer, ChildRequest  # noqa: PLC0415

    request = ChildRequest.model_validate_json(sys.stdin.buffer.read())
    # From the pipe and not from the environment, which other processes of the user can see.
    os.environ.update(request.environment or {})
    try:
        answer = _answer(request)
    except InspectionError as error:
        answer = ChildAnswer(reason=error.reason, field=error.field, message=error.message)
    except MemoryError:
        raise  # The parent knows the limit and says so.
    except Exception as error:  # Whatever an untrusted file provokes is an answer too.
        answer = ChildAnswer(
            reason=InspectionCrashed.reason,
            field="spec.model.url",
            message=f"its graph cannot be followed ({error!r})"[:500],
        )
    sys.stdout.buffer.write(answer.model_dump_json().encode())
    sys.stdout.buffer.flush()
    return 0


def _answer(request: ChildRequest) -> ChildAnswer:
    from tailwise.models.inspection import ChildAnswer, http_access  # noqa: PLC0415 -- limits come first

    if request.identity_only:
        from tailwise.models.fetch import identify  # noqa: PLC0415 -- without the parser's libraries

        access = http_access(request)
        found = identify(
            request.url, access, allow_files=request.allow_files, environment=request.environment
        )
        return ChildAnswer(identity=found.value, identity_source=found.source)
    from tailwise.models.reading import profile_of  # noqa: PLC0415

    return ChildAnswer(profile=profile_of(request))


def _limit(kind: int, amount: int) -> None:
    """Lower a limit; one that is lower already stays."""
    _, hard = resource.getrlimit(kind)
    amount = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
    resource.setrlimit(kind, (amount, hard if kind == resource.RLIMIT_CPU else amount))


if __name__ == "__main__":
    sys.exit(main())
