"""A TCP proxy that can cut, black-hole and delay its connections."""

import socket
import struct
import threading
import time
from functools import partial

CHUNK_BYTES = 65536
POLL_SECONDS = 0.05
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with zero timeout: close() sends RST


class TcpProxy:
    """Listen on a loopback port and forward to `target`, a (host, port) or the path of a Unix socket."""

    def __init__(self, port: int, target: tuple[str, int] | str) -> None:
        self.port = port
        self._target = target
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._refusing = False
        self._delay_seconds = 0.0
        self._reset_pattern = b""
        self._silent: set[socket.socket] = set()
        self._black_holing = False
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Reset every connection and each new one, until heal()."""
        self._refusing = True
        self.reset()

    def reset(self) -> int:
        """Reset all current connections; return their number."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            _reset(*pair)
        return len(pairs)

    def black_hole(self) -> None:
        """Discard all data until heal(). Connections open at that time stay dead without a FIN or RST."""
        self._black_holing = True

    def delay(self, seconds: float) -> None:
        """Delay each chunk by `seconds`, until heal()."""
        self._delay_seconds = seconds

    def reset_after(self, pattern: bytes) -> None:
        """Once: forward the next client chunk that contains `pattern`, and reset before its response."""
        self._reset_pattern = pattern

    def is_reset_pending(self) -> bool:
        return bool(self._reset_pattern)

    def heal(self) -> None:
        self._refusing = self._black_holing = False
        self._delay_seconds = 0.0
        self._reset_pattern = b""

    def close(self) -> None:
        self._listener.close()
        self.reset()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            try:
                server = _connected(self._target)
            except OSError:
                _reset(client)
                continue
            if self._refusing:
                _reset(client, server)
                continue
            with self._lock:
                self._pairs.add((client, server))
            for source, sink in ((client, server), (server, client)):
                pump = partial(self._pump, source, sink, from_client=source is client)
                threading.Thread(target=pump, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, *, from_client: bool) -> None:
        pair = (source, sink) if from_client else (sink, source)
        black_holed = False
        try:
            while chunk := source.recv(CHUNK_BYTES):
                time.sleep(self._delay_seconds)
                black_holed = black_holed or self._black_holing
                if black_holed:
                    continue
                sink.sendall(chunk)
                if from_client and self._reset_pattern and self._reset_pattern in chunk:
                    self._reset_pattern = b""
                    _reset(*pair)
        except OSError:
            pass
        if not black_holed:  # a black-holed connection does not forward the close
            self._forget(pair)

    def _forget(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            self._pairs.discard(pair)
        for end in pair:
            end.close()


def _connected(target: tuple[str, int] | str) -> socket.socket:
    if isinstance(target, tuple):
        return socket.create_connection(target, timeout=None)
    server = socket.socket(socket.AF_UNIX)
    server.connect(target)
    return server


def _reset(*ends: socket.socket) -> None:
    for end in ends:
        try:
            if end.family == socket.AF_INET:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        end.close()
