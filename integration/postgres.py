"""A PostgreSQL of the tests' own: Debian's, on a free port, in a folder that goes with it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from integration.sigkill import handles_of, kill, wait_for_ends

__all__ = ["Postgres", "postgres_version"]

_USER = "postgres"
# To start, to stop or to make a database, on a machine under load.
_TIMEOUT_S = 60
# Below those that the kernel gives to clients, who would take it while PostgreSQL is away.
_PORTS = range(15_000, 30_000)


def _programs() -> Path:
    """Debian keeps them out of the PATH, a folder a version."""
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name)
    )
    if folders:
        return folders[-1]
    found = shutil.which("initdb")
    if found is None:
        raise RuntimeError("there is no PostgreSQL: apt-get install postgresql")
    return Path(found).parent


def _claim_port() -> tuple[int, socket.socket]:
    """A free port that nobody else who asks here is given while the claim is open: PostgreSQL binds
    it later, and once more after each kill."""
    for port in random.sample(_PORTS, len(_PORTS)):
        claim = socket.socket(socket.AF_UNIX)
        try:
            # In the abstract namespace: it leaves no file, and goes with this process.
            claim.bind(f"\0dspex-postgres-{port}")
            with socket.socket() as listener:
                listener.bind(("127.0.0.1", port))
            return port, claim
        except OSError:
            claim.close()
    raise RuntimeError(f"none of the ports {_PORTS.start}-{_PORTS.stop - 1} is free")


def postgres_version() -> str:
    """As it says it itself."""
    done = subprocess.run(
        [str(_programs() / "postgres"), "--version"], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


class Postgres:
    """Started when it is made; `close` ends it and removes what it wrote."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dspex-postgres-"))
        self.port, self._claim = _claim_port()
        self._bin = _programs()
        if os.geteuid() == 0:
            shutil.chown(self.folder, _USER)
        self._run("initdb", "-D", "data", "-U", _USER, "-A", "trust", "-E", "UTF8", "--no-sync")
        self.start()
        self._databases = 0
        # Handles of the processes that a kill left behind.
        self._orphans: list[int] = []

    def start(self) -> None:
        # Its processes are killed here, the machine is not: nothing has to be on the disk.
        options = (
            f"-h 127.0.0.1 -p {self.port} -c unix_socket_directories={self.folder} -c fsync=off"
        )
        self._run("pg_ctl", "-D", "data", "-o", options, "-l", "log", "-w", "start")

    def stop(self, mode: str = "fast") -> None:
        """`immediate` is a crash: nothing is written any more."""
        self._run("pg_ctl", "-D", "data", "-m", mode, "-w", "stop")

    def kill(self) -> bool:
        """SIGKILL to the postmaster, and so the end of all of its processes. False where it was
        dead already."""
        pid = self._postmaster()
        with suppress(ProcessLookupError):
            # It stands still, so that it has no more children than are found now.
            os.kill(pid, signal.SIGSTOP)
            self._orphans += handles_of(self._children(pid))
        return kill(pid)

    def pause(self) -> None:
        """Its processes stand still: it takes connections and says nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        pid = self._postmaster()
        # The first: while it stands still there are no more of the others.
        os.kill(pid, number)
        for child in self._children(pid):
            os.kill(child, number)

    def _postmaster(self) -> int:
        return int((self.folder / "data" / "postmaster.pid").read_text().split("\n", 1)[0])

    def _children(self, pid: int) -> list[int]:
        try:
            return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
        except FileNotFoundError:
            return []

    def start_again(self) -> None:
        """After a kill: its shared memory is free when the last of its processes has ended, which
        notice by themselves that the first one has. That one's number is in its lock files, and is
        a process's until whoever adopted it reaps it: they are taken away."""
        wait_for_ends(self._orphans)
        for lock in (Path("data", "postmaster.pid"), Path(f".s.PGSQL.{self.port}.lock")):
            (self.folder / lock).unlink(missing_ok=True)
        self.start()

    def new_database(self, template: str = "template0") -> str:
        """The URL of a database: an empty one, or a copy of another, which nobody uses."""
        self._databases += 1
        name = f"test_{self._databases}"
        here = ("-h", "127.0.0.1", "-p", str(self.port), "-U", _USER)
        self._run("createdb", *here, "-T", template, name)
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{name}"

    def close(self) -> None:
        if (self.folder / "data" / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self.folder)
        self._claim.close()

    def _run(self, program: str, *arguments: str) -> None:
        # pg_ctl leaves a server behind, which would hold a pipe open for ever.
        output = subprocess.DEVNULL if program == "pg_ctl" else subprocess.PIPE
        user = _USER if os.geteuid() == 0 else None  # it refuses to run as root
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=_TIMEOUT_S,
            check=False,
            user=user,
            group=user,
        )
        if done.returncode != 0:
            log = self.folder / "log"
            text = log.read_text() if log.exists() else ""
            raise RuntimeError(f"{program} failed: {(done.stderr or b'').decode()}{text}")
