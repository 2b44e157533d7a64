"""The one folder whose files clients may name: `--state-dir`."""

from __future__ import annotations

import os
import stat

from dspex_protocol.errors import InvalidParamsError, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["MAX_FILE_BYTES", "StateDir"]

# No frame that is read by default is longer: what a client cannot send, a file should not bring.
MAX_FILE_BYTES = 16 * 1024 * 1024

# Longer ones have no place in an error, and no file system takes them.
_MAX_PATH_CHARS = 1024

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class StateDir:
    """Files below one folder, by paths relative to it: no `..`, and no link is followed.

    Each folder on the way is opened from the one before it, so that nobody who moves things about
    meanwhile can lead a path out. `param` names, for errors, the parameter that a path came in.
    Without a folder there are no paths: everything is refused.
    """

    def __init__(self, folder: str | None = None) -> None:
        """Opens the folder. Raises OSError where it is none."""
        self._root = (
            None if folder is None else os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        )
        self._path = None if folder is None else os.path.realpath(folder)

    def resolve(self, path: str, param: str = "path") -> str:
        """The absolute path, for a library that has to open it itself; the file need not exist.

        Only for what is opened at once: it was within the folder when it was looked at.
        """
        folder, name = self._walk(path, param)
        try:
            kind = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if not stat.S_ISREG(kind):
                _refuse(path, param, "is no plain file")
        except FileNotFoundError:
            pass  # the caller makes it
        finally:
            os.close(folder)
        assert self._path is not None  # noqa: S101 - _walk refused otherwise
        return os.path.join(self._path, *_parts(path, param))  # noqa: PTH118 - pathlib is slow

    def read(self, path: str, param: str = "path", max_bytes: int = MAX_FILE_BYTES) -> bytes:
        """A file's bytes. Raises NotFoundError (kind `file`), and InvalidParamsError for a path
        that may not be and a file that is too long."""
        folder, name = self._walk(path, param)
        try:
            # A pipe in the place of a file would hold up whoever opens it.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(name, flags, dir_fd=folder)
        except FileNotFoundError:
            raise NotFoundError(
                f"there is no file {path!r} in the bridge's --state-dir",
                data={"kind": "file", "name": path},
            ) from None
        except OSError as error:
            _refuse(path, param, _reason(error))
        finally:
            os.close(folder)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            _refuse(path, param, "is no plain file")
        with os.fdopen(fd, "rb") as file:
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            _refuse(path, param, f"is longer than {max_bytes} bytes")
        return data

    def write(
        self, path: str, data: bytes, param: str = "path", max_bytes: int = MAX_FILE_BYTES
    ) -> None:
        """Makes or replaces a file as one step: after a crash there is the old one or the new."""
        if len(data) > max_bytes:
            _refuse(path, param, f"would be longer than {max_bytes} bytes")
        folder, name = self._walk(path, param, may_make=True)
        passing = f".{os.urandom(8).hex()}.tmp"
        try:
            _write_and_rename(folder, passing, name, data)
        except OSError as error:
            _refuse(path, param, _reason(error))
        finally:
            os.close(folder)

    def open_to_append(self, path: str, param: str = "path") -> int:
        """A descriptor that reads a file, made where there is none, and appends to it."""
        folder, name = self._walk(path, param, may_make=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, 0o600, dir_fd=folder)
        except OSError as error:
            _refuse(path, param, _reason(error))
        finally:
            os.close(folder)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            _refuse(path, param, "is no plain file")
        return fd

    def _walk(self, path: str, param: str, *, may_make: bool = False) -> tuple[int, str]:
        """The folder that a path's last part is in, opened, and that part."""
        if self._root is None:
            raise InvalidParamsError(
                f"{param}: this bridge takes no paths: start it with --state-dir FOLDER",
                data={"param": param},
            )
        *folders, name = _parts(path, param)
        current = os.dup(self._root)
        try:
            for part in folders:
                if may_make:
                    _make_folder(part, current)
                current, previous = os.open(part, _FOLDER, dir_fd=current), current
                os.close(previous)
        except FileNotFoundError:
            os.close(current)
            raise NotFoundError(
                f"there is no folder for {path!r} in the bridge's --state-dir",
                data={"kind": "file", "name": path},
            ) from None
        except OSError as error:
            os.close(current)
            _refuse(path, param, _reason(error))
        return current, name


def _make_folder(name: str, parent: int) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        return  # whether it is one, opening it tells


def _write_and_rename(folder: int, passing: str, name: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(passing, flags, 0o600, dir_fd=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.rename(passing, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(passing, dir_fd=folder)
        raise
    os.fsync(folder)


def _parts(path: str, param: str) -> list[str]:
    parts = path.split("/")
    if len(path) > _MAX_PATH_CHARS or "\0" in path:
        raise InvalidParamsError(
            f"{param} is no path: at most {_MAX_PATH_CHARS} characters, none of them NUL",
            data={"param": param},
        )
    if path.startswith("/") or not {"", ".", ".."}.isdisjoint(parts):
        _refuse(
            path,
            param,
            "does not lie inside the bridge's --state-dir: give a path relative to it, "
            "with no empty part, no '.' and no '..'",
        )
    return parts


def _reason(error: OSError) -> str:
    import errno

    if error.errno in (errno.ELOOP, errno.EMLINK):
        return "is a link, which is not followed"
    if error.errno == errno.ENOTDIR:
        return "goes through what is no folder, or a link, which is not followed"
    return f"cannot be used: {error.strerror}"


def _refuse(path: str, param: str, reason: str) -> NoReturn:
    raise InvalidParamsError(f"{param}: {path!r} {reason}", data={"param": param})
