"""TCP ports of 127.0.0.1 for servers that start later, so that nothing takes a port in between."""

import fcntl
import os
import socket
import tempfile
import threading
from functools import cache
from pathlib import Path

FIRST = 10_000
LIMIT = 32_000
"""Below the ports that the system gives to outgoing connections, which are 32,768 to 60,999 by default on Linux."""
_given: set[int] = set()
_looking = threading.Lock()


def free_port() -> int:
    """A port that nothing uses, which no process that asks here is given while this process lives.

    Raises RuntimeError if every port is taken.
    """
    # Processes begin at places of their own, so that few find a port of another one.
    begin = os.getpid() * 97
    # The locks of the file keep other processes away, and not other threads of this one.
    with _looking:
        for step in range(LIMIT - FIRST):
            port = FIRST + (begin + step) % (LIMIT - FIRST)
            if port not in _given and _reserve(port) and _is_unused(port):
                _given.add(port)
                return port
    raise RuntimeError(f"Every port from {FIRST} to {LIMIT - 1} is taken.")


def _reserve(port: int) -> bool:
    """Lock the byte of this port for the life of this process; the system lets it go even if the process is killed."""
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@cache
def _reservations() -> int:
    # Never closed: to close it would give up every lock of the process.
    path = Path(tempfile.gettempdir()) / f"coseat-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_unused(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
