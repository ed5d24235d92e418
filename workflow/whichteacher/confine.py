"""What a process gives up for good before it runs a program: system calls (seccomp), files and signals (Landlock).

Used inside the sandbox by :mod:`whichteacher.harness`, with the standard library alone. Both are calls to the kernel that no tool of a
small system makes for us; the numbers are those of the kernel's headers, for x86_64 and for aarch64.
"""

import ctypes
import os
import stat
import struct

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _PR_SET_DUMPABLE = 38, 22, 4
_SECCOMP_MODE_FILTER = 2
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _ENOSYS = 1, 38
#: Per machine: its name in the filter (AUDIT_ARCH_*), and the numbers of the calls that no program of a test needs: sockets, other
#: processes' memory, namespaces and mounts, keys, kernel modules, tracing, leaving the process group (by which all is killed).
_CALLS: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        {
            **{
                "socket": 41,
                "clone": 56,
                "ptrace": 101,
                "syslog": 103,
                "setpgid": 109,
                "setsid": 112,
                "personality": 135,
            },
            **{
                "pivot_root": 155,
                "chroot": 161,
                "acct": 163,
                "mount": 165,
                "umount2": 166,
                "swapon": 167,
                "swapoff": 168,
            },
            **{
                "reboot": 169,
                "init_module": 175,
                "delete_module": 176,
                "quotactl": 179,
                "kexec_load": 246,
                "add_key": 248,
            },
            **{"request_key": 249, "keyctl": 250, "unshare": 272, "perf_event_open": 298, "name_to_handle_at": 303},
            **{"open_by_handle_at": 304, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312},
            **{"finit_module": 313, "bpf": 321, "userfaultfd": 323},
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            **{
                "socket": 198,
                "clone": 220,
                "ptrace": 117,
                "syslog": 116,
                "setpgid": 154,
                "setsid": 157,
                "personality": 92,
            },
            **{"pivot_root": 41, "chroot": 51, "acct": 89, "mount": 40, "umount2": 39, "swapon": 224, "swapoff": 225},
            **{
                "reboot": 142,
                "init_module": 105,
                "delete_module": 106,
                "quotactl": 60,
                "kexec_load": 104,
                "add_key": 217,
            },
            **{"request_key": 218, "keyctl": 219, "unshare": 97, "perf_event_open": 241, "name_to_handle_at": 264},
            **{"open_by_handle_at": 265, "setns": 268, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272},
            **{"finit_module": 273, "bpf": 280, "userfaultfd": 282},
        },
    ),
}
#: The same on every machine: io_uring, new mount calls, pidfd_getfd.
_NEW_CALLS = (425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 442)
_CLONE3 = 435
#: Numbers from here on are x86_64's second set of calls (x32), which the table does not hold.
_X32 = 0x40000000
_NEW_NAMESPACES = 0x7E020080
_LOAD, _JUMP_EQUAL, _JUMP_ABOVE, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _MACHINE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
#: File rights by the version of Landlock that brought them: 13 at first, then moving, truncating and device control.
_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
#: The version that keeps signals and abstract sockets inside (and, since the fourth, TCP).
_SCOPED_SINCE = 6


#: Looked up once: every test's process is a copy of the harness.
_LIBC = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def hide_memory() -> None:
    """No process of the same user may read or change this one's memory."""
    _checked(_LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")


def filter_program(machine: str) -> bytes:
    """The filter (an array of ``struct sock_filter``) for a machine. Raises :class:`OSError` for an unknown one."""
    if machine not in _CALLS:
        raise OSError(_ENOSYS, f"no list of system calls for {machine}")
    name, calls = _CALLS[machine]
    denied = [number for call, number in calls.items() if call != "clone"] + list(_NEW_CALLS)
    steps: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_JUMP_EQUAL, 1, 0, name),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_ABOVE, 0, 1, _X32),
        (_RETURN, 0, 0, _ERRNO | _ENOSYS),
        (_JUMP_EQUAL, 0, 1, _CLONE3),
        # C libraries then take clone, whose flags a filter can see.
        (_RETURN, 0, 0, _ERRNO | _ENOSYS),
    ]
    for number in denied:
        steps += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    steps += [
        (_JUMP_EQUAL, 0, 3, calls["clone"]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_JUMP_BITS, 0, 1, _NEW_NAMESPACES),
        (_RETURN, 0, 0, _ERRNO | _EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def deny_system_calls(program: bytes) -> None:
    """Take the calls of the table from this process and all it starts; ``program`` is that of :func:`filter_program`."""
    held = ctypes.create_string_buffer(program, len(program))
    array = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(held))
    _checked(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    _checked(_LIBC.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, array, 0, 0), "seccomp")


def landlock_version() -> int:
    """The version of Landlock that this kernel has, 0 where it has none."""
    return max(0, _LIBC.syscall(_LANDLOCK_CREATE, None, 0, 1))


def restrict_files(readable: list[str], writable: list[str]) -> None:
    """From here on this process and all it starts can read and execute what lies in ``readable``, also write in
    ``writable``, open no other file, and signal nothing outside.

    Raises :class:`OSError` where the kernel's Landlock cannot do that (Linux 6.12).
    """
    version = landlock_version()
    if version < _SCOPED_SINCE:
        raise OSError(_ENOSYS, f"Landlock {_SCOPED_SINCE} is needed, this kernel has {version}")
    every = (1 << max(bits for since, bits in _RIGHTS.items() if since <= version)) - 1
    rules = struct.pack("QQQ", every, 3, 3)
    ruleset = _checked(_LIBC.syscall(_LANDLOCK_CREATE, rules, len(rules), 0), "Landlock")
    for paths, rights in ((readable, _EXECUTE | _READ_FILE | _READ_DIR), (writable, every)):
        for path in paths:
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
            of_file = 0 if stat.S_ISDIR(os.fstat(handle).st_mode) else ~(_EXECUTE | _WRITE_FILE | _READ_FILE)
            rule = struct.pack("=Qi", rights & ~of_file, handle)
            _checked(_LIBC.syscall(_LANDLOCK_ADD, ruleset, 1, rule, 0), f"Landlock, {path}")
            os.close(handle)
    _checked(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    _checked(_LIBC.syscall(_LANDLOCK_RESTRICT, ruleset, 0), "Landlock")
    os.close(ruleset)
