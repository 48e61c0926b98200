"""Confine a process before it touches data that nobody vouches for: no network, programs or new files, bounded memory.

Linux only, without privileges: a seccomp filter (man 2 seccomp) denies what a reader of files has no business doing,
and resource limits bound memory, processor time and what is written. A process cannot undo either.

What stays allowed is reading files and writing to descriptors that are open already. So hand the confined process an
open file for its results, and treat them as data.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
from collections.abc import Iterator

DENIED: dict[str, tuple[int | None, int | None]] = {
    # call: number on x86_64 and on aarch64; None where the architecture has no such call
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kill": (62, 129),
    "tkill": (200, 130),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "creat": (85, None),
    "truncate": (76, 45),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rmdir": (84, None),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "mount": (165, 40),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "keyctl": (250, 219),
    "userfaultfd": (323, 282),
    # io_uring would carry out the calls above past this filter
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
ABSENT: dict[str, tuple[int | None, int | None]] = {
    # answered with "no such call", after which the C library uses the older one, which is judged by its arguments
    "clone3": (435, 435),
    "openat2": (437, 437),
}
OPEN = (2, None)
OPENAT = (257, 56)
CLONE = (56, 220)
SECCOMP = (317, 277)
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Machine -> position in the tables above, and its audit number."""

CLONE_THREAD = 0x10000
X32_BIT = 0x40000000
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
LOAD, JUMP_EQUAL, JUMP_ABOVE, JUMP_BITS, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000
Instruction = tuple[int, int, int, int]


class Refused(OSError):
    """The kernel does not let this process confine itself."""


class _Filter(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("when_true", ctypes.c_uint8),
        ("when_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("filters", ctypes.POINTER(_Filter)))


def confine(*, memory: int, seconds: int, written: int) -> None:
    """Confine this process and all its threads, for good.

    Import and open everything that is needed first; files can still be opened for reading afterwards.

    Args:
        memory: bytes of address space on top of what the process has now.
        seconds: of processor time on top of what it has used.
        written: largest file that it may write, in bytes, through a descriptor that is open already.

    Raises:
        Refused: another system or processor than Linux on x86_64 or aarch64, or the kernel forbids it.
    """
    program = list(_program())
    limit(memory=memory, seconds=seconds, written=written)
    _install(program)


def limit(*, memory: int, seconds: int, written: int) -> None:
    """The resource limits of `confine` alone, for a kernel that refuses the filter; limits only ever shrink."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    end = int(used.ru_utime + used.ru_stime) + seconds
    for name, value in (
        (resource.RLIMIT_AS, _address_space() + memory),
        (resource.RLIMIT_CPU, end),
        (resource.RLIMIT_FSIZE, written),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(name)[1]
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (allowed, allowed))


def _address_space() -> int:
    with open("/proc/self/statm", encoding="ascii") as stream:
        return int(stream.read().split()[0]) * resource.getpagesize()


def _program() -> Iterator[Instruction]:
    """The filter: (code, jump when true, jump when false, value); jumps count instructions to skip.

    Raises:
        Refused: the processor is not in `ARCHITECTURES`.
    """
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise Refused(errno.ENOSYS, f"no confinement on {machine or 'this machine'}")
    place, audit = ARCHITECTURES[machine]
    yield LOAD, 0, 0, 4  # the audit number of the architecture
    yield JUMP_EQUAL, 1, 0, audit
    yield RETURN, 0, 0, KILL
    yield LOAD, 0, 0, 0  # the number of the call
    if machine == "x86_64":
        yield JUMP_ABOVE, 0, 1, X32_BIT
        yield RETURN, 0, 0, KILL
    for answer, calls in ((errno.EPERM, DENIED), (errno.ENOSYS, ABSENT)):
        for numbers in calls.values():
            if (number := numbers[place]) is not None:
                yield JUMP_EQUAL, 0, 1, number
                yield RETURN, 0, 0, REFUSE | answer
    for numbers, argument, bits, wanted in ((OPEN, 1, WRITING, False), (OPENAT, 2, WRITING, False)):
        if (number := numbers[place]) is not None:
            yield from _by_bits(number, argument, bits, wanted)
    number = CLONE[place]
    assert number is not None
    yield from _by_bits(number, 0, CLONE_THREAD, True)
    yield RETURN, 0, 0, ALLOW


def _by_bits(number: int, argument: int, bits: int, wanted: bool) -> Iterator[Instruction]:
    """Judge a call by an argument: allowed when it has some of the bits (`wanted`), or when it has none of them."""
    yield JUMP_EQUAL, 0, 4, number
    yield LOAD, 0, 0, 16 + 8 * argument  # the lower half, on little-endian machines
    yield (JUMP_BITS, 1, 0, bits) if wanted else (JUMP_BITS, 0, 1, bits)
    yield RETURN, 0, 0, REFUSE | errno.EPERM
    yield RETURN, 0, 0, ALLOW


def _install(program: list[Instruction]) -> None:
    """Give the filter to the kernel, for every thread of this process.

    Raises:
        Refused: the kernel forbids it.
    """
    no_new_privileges, filter_mode, all_threads = 38, 1, 1
    library = ctypes.CDLL(None, use_errno=True)
    filters = (_Filter * len(program))(*(_Filter(*instruction) for instruction in program))
    whole = _Program(len(program), ctypes.cast(filters, ctypes.POINTER(_Filter)))
    if library.prctl(no_new_privileges, 1, 0, 0, 0):
        raise Refused(ctypes.get_errno(), "the kernel does not let a process give up privileges")
    number = SECCOMP[ARCHITECTURES[platform.machine()][0]]
    if library.syscall(number, filter_mode, all_threads, ctypes.byref(whole)):
        raise Refused(ctypes.get_errno(), "the kernel does not let a process filter its calls (seccomp)")
