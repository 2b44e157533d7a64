"""Stands where the bridge would, and has no will of its own: every byte of stdin goes to a socket,
every byte of the socket to stdout. The test at the other end of the socket is the bridge.

usage: relay.py PORT [GREETING]      GREETING is written to stdout first, as stray output would be
"""

import os
import socket
import sys
import threading


def pump(read, write, then):
    try:
        while data := read(65536):
            write(data)
    except OSError:
        pass
    then()


def write_stdout(data):
    while data:
        data = data[os.write(1, data) :]


try:
    # With little room in between, a test that stops reading stops the client soon.
    peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    peer.sendall(os.getpid().to_bytes(4, "big"))
except OSError:
    os._exit(8)  # the test is over
if len(sys.argv) > 2:
    write_stdout(sys.argv[2].encode())

# The end of stdin is the end of the bridge; the end of the socket is its crash.
stdin = (lambda size: os.read(0, size), peer.sendall, lambda: os._exit(0))
threading.Thread(target=pump, args=stdin, daemon=True).start()
pump(peer.recv, write_stdout, lambda: os._exit(7))
