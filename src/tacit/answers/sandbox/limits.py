"""What a sandboxed process may not do, said to the kernel by system calls: nothing here trusts Python to hold anything.

Builds on nothing of this package. Two parts: ``enclose`` once, for the process that forks candidates, as far as the
kernel offers it (namespaces, another user than root, Landlock); ``confine`` in every candidate, all of it or an error
(rlimits; a seccomp filter that lists what is *allowed*: no file, socket, process, thread, signal or timer).
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal

MEMORY = 512 << 20
"""Bytes of address space of one candidate."""

# What a Python program needs that computes, writes to a pipe that it has and ends: x86_64, aarch64.
_ALLOWED = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215),
    "brk": (12, 214), "rt_sigreturn": (15, 139), "sched_yield": (24, 124), "mremap": (25, 216), "madvise": (28, 233),
    "getpid": (39, 172), "exit": (60, 93), "gettimeofday": (96, 169), "getrusage": (98, 165), "times": (100, 153),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "exit_group": (231, 94), "getrandom": (318, 278),
}  # fmt: skip
# Answered with success and not done: a candidate that sleeps goes on at once, so only computing takes time.
_SKIPPED = {"nanosleep": (35, 101), "clock_nanosleep": (230, 115)}
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_ALLOW, _KILL, _ERRNO, _EPERM = 0x7FFF0000, 0x80000000, 0x00050000, 1
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF: load a word, jump if equal, return
_NEW_USER, _NEW_OTHERS = 0x10000000, 0x40000000 | 0x08000000 | 0x04000000 | 0x00020000  # net, ipc, uts, mounts
_NOBODY = 65534


class Missing(Exception):
    """A limit that this machine does not give; the message names it."""


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("k", ctypes.c_uint))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction)))


_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: object, more: object = 0) -> bool:
    return bool(_libc.prctl(option, value, more, 0, 0) == 0)


def known_machine() -> bool:
    """Whether the numbers of the system calls are known here."""
    return platform.machine() in _MACHINES and ctypes.sizeof(ctypes.c_void_p) == 8


def enclose() -> list[str]:
    """The outer walls, as many as there are; returns their names. With Landlock no file opens afterwards."""
    layers = []
    root = os.geteuid() == 0
    if _libc.unshare(_NEW_OTHERS if root else _NEW_USER | _NEW_OTHERS) == 0:
        layers.append("namespaces")
    if root:
        try:
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
            layers.append("not root")
        except OSError:  # a container without that user: the filter holds root as well
            pass
    if _prctl(_PR_SET_NO_NEW_PRIVS, 1) and _landlock():
        layers.append("landlock")
    return layers


def _landlock() -> bool:
    """No access to any file by its path, nor to TCP; no signals out of here: as far as this kernel can refuse it."""
    version = _libc.syscall(444, None, 0, 1)
    if version < 1:
        return False
    files = (1 << (13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16)) - 1
    rules = (ctypes.c_uint64 * 3)(files, 3, 3)
    size = 8 if version < 4 else 16 if version < 6 else 24
    handle = _libc.syscall(444, ctypes.byref(rules), size, 0)
    if handle < 0:
        return False
    done = _libc.syscall(446, handle, 0) == 0
    os.close(handle)
    return bool(done)


def confine(seconds: int, keep: list[int], null: int) -> None:
    """The inner walls, for this process from now on: nothing is open but ``keep``, and the kernel ends it after so
    many CPU seconds.

    Raises:
        Missing: one of them cannot be built.
    """
    for descriptor in range(3):
        os.dup2(null, descriptor)
    first = 3
    for descriptor in sorted(keep):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, 1 << 16)
    os.environ.clear()
    for name, value in (
        ("CPU", seconds), ("AS", MEMORY), ("FSIZE", 0), ("NPROC", 0), ("CORE", 0), ("MEMLOCK", 0), ("NOFILE", 0)
    ):  # fmt: skip
        try:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
        except (AttributeError, OSError, ValueError):
            raise Missing(f"the limit RLIMIT_{name}") from None
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(_PR_SET_DUMPABLE, 0)
    if not _prctl(_PR_SET_NO_NEW_PRIVS, 1):
        raise Missing("the flag no_new_privs")
    if not _filter():
        raise Missing("seccomp filters")


def _filter() -> bool:
    column, architecture = _MACHINES[platform.machine()]
    lines = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    for calls, answer in ((_ALLOWED, _ALLOW), (_SKIPPED, _ERRNO)):
        for numbers in calls.values():
            lines += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, answer)]
    lines.append((_RETURN, 0, 0, _ERRNO | _EPERM))
    program = _Program(len(lines), (_Instruction * len(lines))(*(_Instruction(*line) for line in lines)))
    return _prctl(_PR_SET_SECCOMP, 2, ctypes.byref(program))
