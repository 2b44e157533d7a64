"""A bridge that was forked: all is made before its client comes.

1. Its guard comes first: it ends the bridge's process group when the bridge, the server or the
   connection is gone. The connection is sent to it once it is there. Until the bridge has a guard
   it is in the server's group, which the server's guard ends.
2. What was made at random is made anew (see `randomness`); connections, logs, caches and LMs are
   made here, after the fork.
3. It waits for the socket where its client will find it: as long as it takes, or until the server
   has closed its end of the channel. To that socket it takes one connection, of this user's (the
   kernel says so), and removes the path. Nobody who connects in time: it ends.
4. From there on it is any other bridge: the connection is its stdin and its stdout.
"""

from __future__ import annotations

import os
import socket
import struct

from . import guard, loop
from .randomness import reseed
from .stdio import Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from .host import Options

__all__ = ["ACCEPT_WITHIN_S", "become_a_bridge"]

#: A bridge that nobody has connected to by then, after it was handed out, ends.
ACCEPT_WITHIN_S = 10.0

# struct ucred of Linux: pid, uid, gid.
_UCRED = struct.Struct("3i")


def become_a_bridge(channel: socket.socket, options: Options, server: int) -> NoReturn:
    """What a child of the process `server` does from its fork to its end. Over `channel` comes the
    socket that it is to listen to."""
    # The connection will have this number: what is made before it may know that already.
    fd = channel.fileno()
    to_guard, from_bridge = socket.socketpair()
    guard.start(from_bridge.fileno(), fd, client=server, is_sent=True)
    from_bridge.close()
    reseed()
    host = loop.make_host(Wire(fd, fd), options)
    host.runner.start()
    ready = loop.load(host)
    connection = _wait_for_client(channel)
    if connection is None:
        os._exit(0)
    with connection, to_guard:
        socket.send_fds(to_guard, [b"\0"], [connection.fileno()])
        os.dup2(connection.fileno(), fd, inheritable=False)
    channel.detach()
    os.set_blocking(fd, False)
    loop.serve(host, fd, ready)


def _wait_for_client(channel: socket.socket) -> socket.socket | None:
    """The connection; None where none comes, or none will."""
    _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    if not descriptors:
        return None
    with socket.socket(fileno=descriptors[0]) as listener:
        connection = _accept(listener)
        os.unlink(listener.getsockname())  # noqa: PTH108 - pathlib is a slow import
    return connection


def _accept(listener: socket.socket) -> socket.socket | None:
    """The first connection of this user's; None where none comes in time."""
    listener.settimeout(ACCEPT_WITHIN_S)
    while True:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            return None
        if _is_own(connection):
            return connection
        connection.close()


def _is_own(connection: socket.socket) -> bool:
    # Where the system does not tell, the folder alone says who may come.
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return bool(_UCRED.unpack(credentials)[1] == os.geteuid())
