"""The sandbox of systemd/agentainerd.service, as far as it can be made without a systemd that runs; as root.

    python tests/fakes/sandboxes.py UNIT FOLDERS COMMAND...    FOLDERS: writable ones, separated by ":"

Made as systemd makes it: system call filter (the sets that `systemd-analyze syscall-filter` prints), architectures, address
families, namespaces, realtime, set-uid bits, writable and executable memory, by libseccomp; user, groups, capabilities and
no-new-privileges, by setpriv; the read-only file system, and kernel tunables, by a mount namespace. Not made: PrivateDevices,
ProtectHome, device control and everything else that needs systemd itself.
"""

import configparser
import ctypes
import os
import subprocess
import sys
from pathlib import Path

PR_SET_NO_NEW_PRIVS = 38
ALLOW, ERRNO_EPERM = 0x7FFF0000, 0x00050001
NOT_EQUAL, EQUAL, MASKED = 1, 4, 7
EXISTS = -17
MOUNT_SETATTR, RECURSIVE, RDONLY, NOSUID = 442, 0x8000, 1, 2
NEW_MOUNTS, PRIVATE = 0x00020000, 0x44000
BIND = 4096 | 16384
NAMESPACES = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
PROT_EXEC, PROT_WRITE_EXEC, SHM_EXEC = 4, 6, 0o100000
libc = ctypes.CDLL(None, use_errno=True)


class Unit:
    """The [Service] section; a key that is there more than once has all of its values."""

    def __init__(self, path):
        values = {}

        class Many(dict):
            def __setitem__(self, key, value):
                if isinstance(value, list) and key in self:
                    self[key].extend(value)
                else:
                    super().__setitem__(key, value)

        parser = configparser.RawConfigParser(dict_type=Many, strict=False, comment_prefixes="#", delimiters="=")
        parser.optionxform = str
        with open(path) as file:
            parser.read_file(file)
        values.update(parser["Service"])
        self.values = {key: value.split("\n") for key, value in values.items()}

    def words(self, key):
        return [word for value in self.values.get(key, []) for word in value.split()]

    def is_on(self, key):
        return self.words(key) == ["yes"]


def call(name, *arguments):
    if getattr(libc, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def known_sets():
    text = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True).stdout
    sets, current = {}, None
    for line in text.splitlines():
        word = line.strip()
        if line.startswith("@"):
            current = sets[word] = set()
        elif current is not None and word and not word.startswith("#"):
            current.add(word)
    return sets


def expand(name, sets):
    if not name.startswith("@"):
        return {name}
    return {call for one in sets[name] for call in expand(one, sets)}


def allowed_calls(unit):
    sets, allowed = known_sets(), set()
    for value in unit.values["SystemCallFilter"]:
        removes, names = value.startswith("~"), value.lstrip("~").split()
        for name in names:
            allowed = allowed - expand(name, sets) if removes else allowed | expand(name, sets)
    return allowed | expand("@default", sets) | {"execve"}


class Compare(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


class Filter:
    """One filter of system calls."""

    def __init__(self, default):
        self._seccomp = ctypes.CDLL("libseccomp.so.2")
        self._seccomp.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._seccomp.seccomp_init(default))

    def rule(self, action, call, *compares):
        number = self._seccomp.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:
            array = (Compare * len(compares))(*compares)
            done = self._seccomp.seccomp_rule_add_array(self._context, action, number, len(compares), array)
            assert done in (0, EXISTS), (call, done)

    def refuse(self, call, *compares):
        self.rule(ERRNO_EPERM, call, *compares)

    def load(self):
        assert self._seccomp.seccomp_load(self._context) == 0


def refusals(unit):
    """What the unit's single switches forbid, as systemd's own filters do."""
    refused = Filter(ALLOW)
    switches = {
        "MemoryDenyWriteExecute": [
            ("mmap", Compare(2, MASKED, PROT_WRITE_EXEC, PROT_WRITE_EXEC)),
            ("mprotect", Compare(2, MASKED, PROT_EXEC, PROT_EXEC)),
            ("pkey_mprotect", Compare(2, MASKED, PROT_EXEC, PROT_EXEC)),
            ("shmat", Compare(2, MASKED, SHM_EXEC, SHM_EXEC)),
        ],
        "RestrictNamespaces": [
            ("setns",),
            *((call, Compare(0, MASKED, flag, flag)) for flag in NAMESPACES for call in ("unshare", "clone")),
        ],
        "RestrictSUIDSGID": [
            (call, Compare(at, MASKED, bit, bit))
            for call, at in (("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("mkdir", 1), ("mkdirat", 2), ("mknod", 1))
            for bit in (0o4000, 0o2000)
        ],
        "RestrictRealtime": [("sched_setscheduler", Compare(1, EQUAL, policy, 0)) for policy in (1, 2, 6)],
        "LockPersonality": [("personality", Compare(0, NOT_EQUAL, 0, 0))],
    }
    for switch, rules in switches.items():
        assert unit.is_on(switch), f"the unit does not have {switch}=yes"
        for rule in rules:
            refused.refuse(*rule)
    families = [FAMILIES[name] for name in unit.words("RestrictAddressFamilies")]
    for number in range(46):
        if number not in families:
            refused.refuse("socket", Compare(0, EQUAL, number, 0))
    return refused


def filter_calls(unit):
    permitted = Filter(ERRNO_EPERM)
    for name in allowed_calls(unit):
        permitted.rule(ALLOW, name)
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    refusals(unit).load()
    permitted.load()


def open_up(needed):
    """Show these folders also where they lie in one that is closed to others, such as root's home, and nothing else of that."""
    closed = {}
    for path in needed:
        parents = [parent for parent in reversed(Path(path).parents) if not parent.stat().st_mode & 0o001]
        if parents:
            closed.setdefault(parents[0], {})[path] = os.open(path, os.O_PATH)
    for folder, paths in closed.items():
        call("mount", b"tmpfs", str(folder).encode(), b"tmpfs", 0, b"mode=755")
        for path, descriptor in paths.items():
            os.makedirs(path, exist_ok=True)
            call("mount", f"/proc/self/fd/{descriptor}".encode(), path.encode(), None, BIND, None)


def mount_read_only(unit, writable):
    class Attributes(ctypes.Structure):
        _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]

    def set_all(path, **values):
        attributes = Attributes(**values)
        call(
            "syscall",
            MOUNT_SETATTR,
            -100,
            path.encode(),
            RECURSIVE,
            ctypes.byref(attributes),
            ctypes.sizeof(attributes),
        )

    call("unshare", NEW_MOUNTS)
    call("mount", None, b"/", None, PRIVATE, None)
    open_up([os.path.realpath(sys.base_prefix), sys.prefix, str(Path(__file__).parents[2])])
    for path in writable:
        call("mount", path.encode(), path.encode(), None, BIND, None)
    assert unit.words("ProtectSystem") == ["strict"]
    set_all("/", set=RDONLY | NOSUID)
    for path in ("/dev", "/proc", *writable):
        set_all(path, clear=RDONLY)
    if unit.is_on("ProtectKernelTunables"):
        call("mount", b"/proc/sys", b"/proc/sys", None, BIND, None)
        set_all("/proc/sys", set=RDONLY)


def enter(unit_path, writable, command):
    """As root: mounts, then who we are. Goes on in `finish`, in the same process."""
    unit = Unit(unit_path)
    mount_read_only(unit, writable.split(":"))
    capabilities = "".join(f",+{name.removeprefix('CAP_').lower()}" for name in unit.words("AmbientCapabilities"))
    bounding = "".join(f",+{name.removeprefix('CAP_').lower()}" for name in unit.words("CapabilityBoundingSet"))
    uid, gid = os.environ.pop("SANDBOX_USER").split(":")
    groups = os.environ.pop("SANDBOX_GROUPS")
    os.execvp(
        "setpriv",
        [
            "setpriv", f"--reuid={uid}", f"--regid={gid}", f"--groups={groups}" if groups else "--clear-groups",
            f"--inh-caps=-all{capabilities}", f"--ambient-caps=-all{capabilities}", f"--bounding-set=-all{bounding}",
            sys.executable, os.path.abspath(__file__), "finish", unit_path, *command,
        ],
    )  # fmt: skip


def finish(unit_path, command):
    unit = Unit(unit_path)
    for value in unit.values.get("Environment", []):
        name, _, text = value.partition("=")
        os.environ.setdefault(name, text)
    filter_calls(unit)
    os.execvp(command[0], command)


if __name__ == "__main__":
    if sys.argv[1] == "finish":
        finish(sys.argv[2], sys.argv[3:])
    else:
        enter(sys.argv[1], sys.argv[2], sys.argv[3:])
