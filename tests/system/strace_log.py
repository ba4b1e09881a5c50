"""What strace saw a tree of processes do to files and to the network, with every path made absolute."""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

PROCESSES = ("clone", "clone3", "fork", "vfork", "unshare", "execve")
OPENS = ("open", "openat", "openat2")
CHANGES = (
    *("creat", "mkdir", "mkdirat", "mknod", "mknodat", "rmdir", "unlink", "unlinkat", "truncate"),
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"),
    *("chmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchownat", "utimensat", "setxattr", "lsetxattr"),
    *("mount", "umount2", "pivot_root"),
)
NETWORK = ("connect", "bind", "sendto", "sendmsg", "sendmmsg")

_LINE = re.compile(r"(\d+) +(.*)", re.DOTALL)
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)", re.DOTALL)
_CALL = re.compile(r"(\w+)\((.*)\)\s+= (-?\w+)(.*)", re.DOTALL)
_PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<((?:[^<>"]|<[^<>]*>)*)>, )?"((?:[^"\\]|\\.)*)"')
_CWD = re.compile(r'AT_FDCWD<([^<>"]*)>')
_OUTER_PID = re.compile(r"/\* (\d+) in strace's PID NS \*/")
_WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_TMPFILE")
_FAMILY = re.compile(r"sa_family=(\w+)")
_ADDRESS = re.compile(r'inet_(?:addr\(|pton\(AF_INET6, )"([^"]+)"|sun_path=(@?"[^"]*")')


@dataclass(frozen=True)
class Process:
    """Whose call it was: the program, where it stood, and whether it has mounts of its own (bubblewrap)."""

    program: str
    cwd: str
    fenced: bool = False


@dataclass(frozen=True)
class Write:
    """A call that changes, or may change, the file at ``path``, whether it worked or not."""

    by: Process
    call: str
    path: str


@dataclass(frozen=True)
class Contact:
    """A call that reaches out of the process: ``family`` AF_INET, AF_UNIX …; ``address`` an IP address or a path."""

    by: Process
    call: str
    family: str
    address: str


@dataclass(frozen=True)
class Seen:
    """What was seen, and the result of the command."""

    exit_code: int
    output: str
    programs: frozenset[str]
    writes: frozenset[Write]
    contacts: frozenset[Contact]


def traced(command: Sequence[str], cwd: Path, env: Mapping[str, str], log: Path) -> Seen:
    """Runs the command under strace, with all processes it starts, to the end of the last of them."""
    calls = ",".join(f"?{name}" for name in (*PROCESSES, *OPENS, *CHANGES, *NETWORK))
    strace = ["strace", "--follow-forks", "--seccomp-bpf", "-qq", "-yy", "--decode-pids=pidns", f"--output={log}"]
    done = subprocess.run(
        [*strace, f"--trace={calls}", "--", *command],
        cwd=cwd,
        env=dict(env),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    program = shutil.which(command[0])
    assert program is not None
    reader = _Reader(log, Process(program, str(cwd)))
    return Seen(
        done.returncode,
        done.stdout + done.stderr,
        frozenset(reader.programs),
        frozenset(reader.writes),
        frozenset(reader.contacts),
    )


class _Reader:
    """Goes through a log of strace, keeping who is who."""

    def __init__(self, log: Path, first: Process) -> None:
        self.programs: set[str] = set()
        self.writes: set[Write] = set()
        self.contacts: set[Contact] = set()
        self._processes: dict[int, Process] = {}
        self._parents: dict[int, tuple[int, bool]] = {}
        calls = list(_whole_calls(log))
        # A child is often heard before the call that made it returns.
        for pid, name, arguments, result in calls:
            if name in ("clone", "clone3", "fork", "vfork") and (child := _pid(result)):
                self._parents[child] = (pid, "CLONE_NEWNS" in arguments)
        self._processes[calls[0][0]] = first
        for pid, name, arguments, result in calls:
            self._take(pid, name, arguments, result)

    def _process(self, pid: int) -> Process:
        if pid not in self._processes:
            parent, own_mounts = self._parents[pid]
            like = self._process(parent)
            self._processes[pid] = replace(like, fenced=like.fenced or own_mounts)
        return self._processes[pid]

    def _take(self, pid: int, name: str, arguments: str, result: str) -> None:
        process = self._process(pid)
        if cwd := _CWD.search(arguments):
            process = replace(process, cwd=cwd[1])
        if name == "unshare" and "CLONE_NEWNS" in arguments:
            process = replace(process, fenced=True)
        if name == "execve" and result == "0":
            process = replace(process, program=_PATH.findall(arguments)[0][1])
            self.programs.add(process.program)
        self._processes[pid] = process
        if name in CHANGES or (name in OPENS and _WRITES.search(arguments)):
            self.writes.update(Write(process, name, path) for path in _paths(name, arguments, process.cwd))
        elif name in NETWORK and (family := _FAMILY.search(arguments)):
            address = _ADDRESS.search(arguments)
            contact = Contact(process, name, family[1], (address[1] or address[2].strip('"')) if address else "")
            self.contacts.add(contact)


def _paths(name: str, arguments: str, cwd: str) -> Iterator[str]:
    found = _PATH.findall(arguments)
    assert found or name in ("mount", "umount2"), (name, arguments)
    if name.startswith("symlink"):
        found = found[1:]  # the first is what it says, not where it is
    elif name.startswith("mount"):
        found = found[1:2]
    for folder, path in found:
        yield posixpath.normpath(posixpath.join(folder or cwd, path))


def _whole_calls(log: Path) -> Iterator[tuple[int, str, str, str]]:
    """Pid, name, arguments and result of each call. Those that another interrupted are put together again."""
    begun: dict[int, str] = {}
    with log.open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            number, text = _LINE.fullmatch(line.rstrip("\n")).groups()  # type: ignore[union-attr]
            pid = int(number)
            if text.endswith("<unfinished ...>"):
                begun[pid] = text.removesuffix("<unfinished ...>").rstrip()
                continue
            if resumed := _RESUMED.fullmatch(text):
                text = begun.pop(pid, "") + " " + resumed[1]
            if call := _CALL.fullmatch(text):
                result = _OUTER_PID.search(call[4])
                yield pid, call[1], call[2], result[1] if result else call[3]
    # A process that was killed in the midst of a call has made it all the same.
    for pid, text in begun.items():
        name, _, arguments = text.partition("(")
        yield pid, name, arguments, "?"


def _pid(result: str) -> int:
    return int(result) if result.isdecimal() else 0
