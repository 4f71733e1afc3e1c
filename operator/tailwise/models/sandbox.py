"""Takes a process its network and the right to start programs: for good, and without any privilege.

A seccomp filter (seccomp(2), Linux 3.17) for all threads makes the system calls that open, use or accept
connections fail with EPERM, and those that replace the program. Open connections are shut down before. A
fault that a hostile file finds in a parser then has nobody to tell what it finds.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import stat
import struct
from contextlib import suppress

_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER, _TSYNC = 1, 1
_ALLOW, _EPERM, _KILL = 0x7FFF0000, 0x00050001, 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_X32 = 0x40000000  # the other numbering of an x86-64 kernel, refused whole
_MOST_DESCRIPTORS = 4096

# AUDIT_ARCH, the number of seccomp(2), and the numbers refused: socket, connect, accept, sendto, sendmsg,
# bind, listen, sendmmsg, accept4, socketpair, execve, execveat, ptrace, process_vm_writev, io_uring_setup.
_MACHINES: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "x86_64": (0xC000003E, 317, (41, 42, 43, 44, 46, 49, 50, 307, 288, 53, 59, 322, 101, 311, 425)),
    "aarch64": (0xC00000B7, 277, (198, 203, 202, 206, 211, 200, 201, 269, 242, 199, 221, 281, 117, 271, 425)),
}


def give_up_network() -> bool:
    """Shut down all connections and make new ones impossible; False where the kernel has no such filter."""
    for descriptor in range(3, _MOST_DESCRIPTORS):
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                _shut_down(descriptor)
    known = _MACHINES.get(platform.machine())
    return known is not None and _filter(*known)


def _shut_down(descriptor: int) -> None:
    # The socket stays whose it is: closing it twice would close another's.
    connection = socket.socket(fileno=descriptor)
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.detach()


def _filter(architecture: int, seccomp: int, refused: tuple[int, ...]) -> bool:
    program = [
        (_LOAD, 0, 0, 4),  # the architecture
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # the number of the system call
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _EPERM),
    ]
    for number in refused:
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _EPERM)]
    program.append((_RETURN, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    # struct sock_fprog: a count and a pointer, with the padding of native alignment between.
    head = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(libc.syscall(seccomp, _SECCOMP_SET_MODE_FILTER, _TSYNC, ctypes.byref(head)) == 0)
