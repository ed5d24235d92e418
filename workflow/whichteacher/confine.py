"""What a process gives up for good before it runs a program: system calls (seccomp) and files (Landlock).

Used inside the sandbox by :mod:`whichteacher.harness`, with the standard library alone. Both are calls to the kernel that no tool of a
small system makes for us. The numbers are those of the kernel's headers (asm/unistd_64.h, asm-generic/unistd.h, linux/landlock.h).
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Sequence
from pathlib import Path

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _PR_SET_DUMPABLE = 38, 22, 4
_SECCOMP_MODE_FILTER = 2
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _ENOSYS = 1, 38
_REFUSE = _ERRNO | _EPERM
#: The machines we know, in the order of the numbers below: AUDIT_ARCH_* of the filter.
_MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
#: Calls that no program of a test needs. First sockets, leaving the process group (by which all is killed), other processes' memory
#: and priority, and what outlives a process; then what only an administrator does.
_DENIED: dict[str, tuple[int, int]] = {
    "socket": (41, 198),
    "setpgid": (109, 154),
    "setsid": (112, 157),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "personality": (135, 92),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "syslog": (103, 116),
    "acct": (163, 89),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "quotactl": (179, 60),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "delete_module": (176, 106),
    "finit_module": (313, 273),
}
#: The same on every machine: pidfd_send_signal, io_uring (3), new mount calls (6), pidfd_open, pidfd_getfd, process_madvise,
#: mount_setattr, process_mrelease.
_DENIED_NEW = (424, 425, 426, 427, 428, 429, 430, 431, 432, 433, 434, 438, 440, 442, 448)
#: Mode, owner, times and attributes of files, which Landlock does not guard; 0 where a machine has no such call.
_ATTRIBUTES = {
    "truncate": (76, 45),
    "chmod": (90, 0),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, 0),
    "fchown": (93, 55),
    "lchown": (94, 0),
    "fchownat": (260, 54),
    "utime": (132, 0),
    "utimes": (235, 0),
    "futimesat": (261, 0),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
}
#: Calls whose first argument names a process: the caller's own alone.
_OWN = {"kill": (62, 129), "tgkill": (234, 131), "prlimit64": (302, 261)}
#: Calls that would let the kernel send signals for the caller: F_SETOWN and F_SETOWN_EX, FIOSETOWN and SIOCSPGRP.
_SIGNALS_BY_FILE = {(72, 25): (8, 15), (16, 29): (0x8901, 0x8902)}
_CLONE, _CLONE3 = (56, 220), 435
#: The older ways to start a process; 0 where a machine has no such call.
_FORKS = {"fork": (57, 0), "vfork": (58, 0)}
_NEW_NAMESPACES, _THREAD = 0x7E020080, 0x00010000
#: Numbers from here on are x86_64's second set of calls (x32), which the table does not hold.
_X32 = 0x40000000
_LOAD, _JUMP_EQUAL, _JUMP_ABOVE, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
#: File rights by the version of Landlock that brought them: 13 at first, then moving, truncating and device control.
_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
#: The first version that guards truncating (Linux 6.2), and the first that keeps signals and abstract sockets inside (6.12).
_NEEDED, _SCOPED = 3, 6

_Step = tuple[int, int, int, int]


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def hide_memory() -> None:
    """No process of the same user may read or change this one's memory, nor open its files through /proc."""
    _checked(_libc().prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")


def _by_argument(number: int, argument: int, values: Sequence[int], hit: int, miss: int) -> list[_Step]:
    """``hit`` where the argument of the call ``number`` is one of ``values``, otherwise ``miss``."""
    steps = [(_JUMP_EQUAL, 0, 2 * len(values) + 2, number), (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument)]
    for value in values:
        steps += [(_JUMP_EQUAL, 0, 1, value), (_RETURN, 0, 0, hit)]
    return [*steps, (_RETURN, 0, 0, miss)]


def filter_program(machine: str, process: int, attributes: bool, processes: bool) -> bytes:
    """The filter (an array of ``struct sock_filter``) for a machine and the process of that number.

    ``attributes`` leaves the calls that change the attributes of files, ``processes`` those that start a process (threads
    may always be started). Raises :class:`OSError` for an unknown machine.
    """
    if machine not in _MACHINES:
        raise OSError(_ENOSYS, f"no list of system calls for {machine}")
    column = list(_MACHINES).index(machine)
    calls = [*_DENIED.values(), *(() if attributes else _ATTRIBUTES.values()), *(() if processes else _FORKS.values())]
    steps: list[_Step] = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_JUMP_EQUAL, 1, 0, _MACHINES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_ABOVE, 0, 1, _X32),
        (_RETURN, 0, 0, _ERRNO | _ENOSYS),
        (_JUMP_EQUAL, 0, 1, _CLONE3),
        # C libraries then take clone, whose flags a filter can see.
        (_RETURN, 0, 0, _ERRNO | _ENOSYS),
    ]
    for number in [*filter(None, (numbers[column] for numbers in calls)), *_DENIED_NEW]:
        steps += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    for numbers in _OWN.values():
        steps += _by_argument(numbers[column], 0, (0, process), _ALLOW, _REFUSE)
    for numbers, requests in _SIGNALS_BY_FILE.items():
        steps += _by_argument(numbers[column], 1, requests, _REFUSE, _ALLOW)
    started = [] if processes else [(_JUMP_BITS, 1, 0, _THREAD), (_RETURN, 0, 0, _REFUSE)]
    steps += [
        (_JUMP_EQUAL, 0, 3 + len(started), _CLONE[column]),
        (_LOAD, 0, 0, _ARGUMENTS_AT),
        (_JUMP_BITS, 0, 1, _NEW_NAMESPACES),
        (_RETURN, 0, 0, _REFUSE),
        *started,
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def deny_system_calls(attributes: bool, processes: bool) -> None:
    """Take the calls of the tables from this process and all it starts; the arguments are those of :func:`filter_program`.

    Raises :class:`OSError` where the kernel or the machine does not allow it.
    """
    program = filter_program(platform.machine(), os.getpid(), attributes, processes)
    held = ctypes.create_string_buffer(program, len(program))
    array = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(held))
    libc = _libc()
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    _checked(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, array, 0, 0), "seccomp")


def landlock_version() -> int:
    """The version of Landlock that this kernel has, 0 where it has none."""
    return max(0, _libc().syscall(_LANDLOCK_CREATE, None, 0, 1))


def restrict_files(readable: Sequence[str], writable: Sequence[str] = ()) -> None:
    """From here on this process and all it starts can read and execute what lies in ``readable``, also write in
    ``writable``, and open no other file.

    Raises :class:`OSError` where the kernel's Landlock cannot do that (Linux 6.2) or a path cannot be opened.
    """
    version = landlock_version()
    if version < _NEEDED:
        raise OSError(_ENOSYS, f"Landlock {_NEEDED} is needed, this kernel has {version}")
    every = (1 << max(bits for since, bits in _RIGHTS.items() if since <= version)) - 1
    libc = _libc()
    rules = struct.pack("QQQ", every, 3, 3) if version >= _SCOPED else struct.pack("Q", every)
    ruleset = _checked(libc.syscall(_LANDLOCK_CREATE, rules, len(rules), 0), "Landlock")
    for paths, rights in ((readable, _EXECUTE | _READ_FILE | _READ_DIR), (writable, every)):
        for path in paths:
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
            of_kind = rights if Path(path).is_dir() else rights & (_EXECUTE | _WRITE_FILE | _READ_FILE)
            rule = struct.pack("=Qi", of_kind, handle)
            _checked(libc.syscall(_LANDLOCK_ADD, ruleset, 1, rule, 0), f"Landlock, {path}")
            os.close(handle)
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    _checked(libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0), "Landlock")
    os.close(ruleset)
