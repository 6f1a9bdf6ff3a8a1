"""Loss of power, simulated: what a disk holds at any moment of a run that strace wrote down.

    trace(command, folder, log)    run it under strace (Debian: apt-get install strace), which needs no rights of its own
    Disk(folder, log, working)     the run: `events` in their order, `acknowledged`; `working` is the folder of relative names
    disk.after(number, random)     a Moment: what may be left if power goes after that many events
    moment.write(target)           that, as files

The rules are those of POSIX, and of file systems as they are: what was written to a file is kept if fsync or fdatasync of
it was called after that and came back; names (made, renamed, removed) are kept if fsync of their folder did, and those of
one folder survive in their order. Of all that is not kept, any part may survive. The end of a file that was being written
can be cut anywhere, or zero bytes stand where the data was to be. Files only grow: so do all of a journal.
"""

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

CALLS = (
    "open,openat,creat,write,pwrite64,writev,ftruncate,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,"
    "fsync,fdatasync"
)  # fmt: skip
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)(?:<([^>]*)>)?.*$", re.DOTALL)
_UNFINISHED = re.compile(r"^(\d+) +(\w+)\((.*) <unfinished \.\.\.>$", re.DOTALL)
_RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$", re.DOTALL)
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR = re.compile(r"^\d+<((?:\\x[0-9a-f]{2})*)>")


def trace(command, folder, log, *, fault="", timeout_s=60):
    """Run a command in `folder` to its end under strace; every word of its log is in hexadecimal.

    `fault` is what strace injects, such as "fdatasync:error=EIO:when=40" (the fortieth of each thread fails, undone).
    """
    assert shutil.which("strace"), "this test needs strace: apt-get install strace"
    return subprocess.run(
        ["strace", "-f", "-y", "-xx", "-s", "2000000", "--seccomp-bpf", "-e", f"trace={CALLS}", *(["-e", f"inject={fault}"] if fault else []), "-o", str(log), *command],
        cwd=folder, timeout=timeout_s, text=True, check=False, capture_output=True,
    )  # fmt: skip


def fail(command, folder, fault, paths, timeout_s=60):
    """Run a command in `folder` to its end, while calls on the files `paths` fail as strace says by `fault`."""
    assert shutil.which("strace"), "this test needs strace: apt-get install strace"
    only = [word for path in paths for word in ("-P", str(path))]
    call = fault.partition(":")[0]
    return subprocess.run(
        ["strace", "-f", "-qq", *only, "-e", f"trace={call}", "-e", f"inject={fault}", "-o", "/dev/null", *command],
        cwd=folder, timeout=timeout_s, text=True, check=False, capture_output=True,
    )  # fmt: skip


@dataclass(eq=False)
class Inode:
    """A file's bytes, and how many of them an fsync made durable."""

    data: bytearray = field(default_factory=bytearray)
    durable: int = 0


@dataclass
class Moment:
    files: dict
    folders: set

    def write(self, target):
        """Write what is left to an empty folder."""
        for path in sorted(self.folders):
            (target / path).mkdir(parents=True, exist_ok=True)
        for path, data in self.files.items():
            if str(Path(path).parent) in self.folders:
                (target / path).write_bytes(data)


class Disk:
    """Every change of a file below `folder`, from the log of `trace`. `acknowledged`: the words that were written to a file of
    the name `acks`, and after how many events.
    """

    def __init__(self, folder, log, working_folder):
        self.root, self.working_folder = str(folder), str(working_folder)
        self.events, self.acknowledged = [], []
        for tid, call, words, result in _calls(log):
            self._note(tid, call, words, result)
        assert self.events, "strace saw no change of a file"

    def after(self, number, random):
        """Return what may be left of the first `number` events."""
        state = _State(self.root)
        for event in self.events[:number]:
            state.apply(*event)
        return state.survivors(random)

    def acknowledged_by(self, number):
        """Return the words that were acknowledged when `number` events had happened, without those that begin with "-"."""
        return [word for at, word in self.acknowledged if at <= number and not word.startswith("-")]

    def moments_of_names(self):
        """Return the numbers after whose events a name, but no fsync of its folder, is on its way."""
        return [at + 1 for at, event in enumerate(self.events) if event[0] in ("make", "rename", "remove")]

    def moments_of_trouble(self):
        """Return the numbers at which something is acknowledged for the first time after an fsync that failed."""
        failed = [at for at, event in enumerate(self.events) if event[0] == "failed sync"]
        told = [next((number for number, _ in self.acknowledged if number > at), None) for at in failed]
        return sorted({number for number in told if number})

    def _note(self, tid, call, words, result):
        """`result` None: the call begins; only syncs and acknowledgements care for that."""
        path = _path(words)
        if path is not None and path.endswith("/acks") and call == "write":
            if result is None:
                self.acknowledged += [(len(self.events), word) for word in _strings(words)[0].decode().split()]
            return
        if call in ("fsync", "fdatasync") and self._is_ours(path):
            kind = {None: "begin sync", 0: "end sync"}.get(result, "failed sync")
            self.events.append((kind, path, tid))
        elif result is not None and result >= 0:
            for event in self._changes(call, words, result, path):
                self.events.append(event)

    def _changes(self, call, words, result, path):
        names = [] if "write" in call else [f"{Path(self.working_folder, text.decode())}" for text in _strings(words)]
        ours = [name for name in names if self._is_ours(name)]
        if call in ("open", "openat", "creat") and ours and ("O_CREAT" in words or call == "creat"):
            yield ("make", ours[0], "O_TRUNC" in words)
        elif call in ("mkdir", "mkdirat") and ours:
            yield ("folder", ours[0])
        elif call.startswith("rename") and len(ours) == 2:
            yield ("rename", *ours)
        elif call.startswith("unlink") and ours:
            yield ("remove", ours[0])
        elif call in ("write", "pwrite64", "writev") and self._is_ours(path):
            yield ("write", path, b"".join(_strings(words))[:result])
        elif call == "ftruncate" and self._is_ours(path):
            yield ("cut", path, int(words.rpartition(", ")[2]))

    def _is_ours(self, path):
        return path is not None and path.startswith(self.root)


class _State:
    """The files at one moment: what programs see, what is durable, and the names on their way of each folder."""

    def __init__(self, root):
        self.root = root
        self.names, self.kept_names, self.waiting, self.syncing = {}, {}, {}, {}
        self.folders = {root}

    def apply(self, kind, path, *more):
        getattr(self, "_" + kind.replace(" ", "_"))(path, *more)

    def _make(self, path, is_emptied):
        if path not in self.names or is_emptied:
            self._name(path, ("set", path, Inode()))

    def _folder(self, path):
        self.folders.add(path)
        self._name(path, ("set", path, None))

    def _rename(self, path, target):
        inode = self.names.get(path)
        if Path(path).parent == Path(target).parent:
            self._name(path, ("rename", path, target, inode))
        else:  # two folders, which are made durable one by one
            self._name(target, ("set", target, inode))
            self._name(path, ("remove", path))

    def _remove(self, path):
        self._name(path, ("remove", path))

    def _write(self, path, data):
        if path in self.names:
            self.names[path].data += data

    def _cut(self, path, length):
        inode = self.names[path]
        del inode.data[length:]
        inode.durable = min(inode.durable, length)

    def _begin_sync(self, path, tid):
        inode = self.names.get(path)
        self.syncing[path, tid] = (inode, len(inode.data if inode else self.waiting.get(path, ())))

    def _end_sync(self, path, tid):
        inode, length = self.syncing.pop((path, tid), (None, 0))
        if inode is not None:
            inode.durable = max(inode.durable, length)
        elif path in self.folders:
            changes = self.waiting.get(path, [])
            for change in changes[:length]:
                _change(self.kept_names, change)
            del changes[:length]

    def _failed_sync(self, path, tid):
        del self.syncing[path, tid]

    def _name(self, path, change):
        _change(self.names, change)
        self.waiting.setdefault(path.rpartition("/")[0], []).append(change)

    def survivors(self, random):
        names = dict(self.kept_names)
        for changes in self.waiting.values():
            for change in changes[: random.randint(0, len(changes))]:
                _change(names, change)
        folders = {path for path, inode in names.items() if inode is None} | {self.root}
        files = {path: _torn(inode, random) for path, inode in names.items() if inode is not None}
        local = len(self.root) + 1
        return Moment(
            {path[local:]: data for path, data in files.items()}, {path[local:] or "." for path in folders}
        )  # fmt: skip


def _change(names, change):
    kind, path, *more = change
    if kind == "set":
        names[path] = more[0]
    elif kind == "remove":
        names.pop(path, None)
    else:
        names.pop(path, None)
        names[more[0]] = more[1]


def _torn(inode, random):
    """What may be left of a file: all that is durable, and of the rest a part, and zero bytes."""
    tail = bytes(inode.data[inode.durable :])
    kept = tail[: random.choice((0, len(tail), random.randint(0, len(tail))))]
    zeros = random.choice((0, len(tail) - len(kept), random.randint(1, 5000))) if tail else 0
    return bytes(inode.data[: inode.durable]) + kept + bytes(zeros)


def _calls(log):
    """Yield (thread, call, arguments, None) where a call begins, and with its result where it ends."""
    begun = {}
    for line in Path(log).read_text(errors="replace").splitlines():
        if found := _UNFINISHED.match(line):
            tid, call, words = found.groups()
            begun[tid] = words
            yield tid, call, words, None
            continue
        if found := _RESUMED.match(line):
            line = f"{found[1]} {found[2]}({begun.pop(found[1], '')}{found[3]}"
            found = _LINE.match(line)
        elif found := _LINE.match(line):
            yield found[1], found[2], found[3], None
        if found:
            yield found[1], found[2], found[3], int(found[4])


def _strings(words):
    return [bytes.fromhex(text.replace("\\x", "")) for text in _STRING.findall(words)]


def _path(words):
    """Return the path of the descriptor that is the first argument."""
    found = _DESCRIPTOR.match(words)
    return bytes.fromhex(found[1].replace("\\x", "")).decode(errors="replace") if found else None
