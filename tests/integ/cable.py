"""A cable between the gateway and what it dials inside, which a test can cut and mend; and a socket
whose machine seems to be gone."""
import ctypes
import errno
import fcntl
import socket
import struct
import termios
import threading

import pytest
from labnet import LINK, wait_for

SO_ATTACH_FILTER = 26  # Linux; socket has no name for it
RETURN_0 = struct.pack("HBBI", 6, 0, 0, 0)  # BPF: every segment is thrown away


def vanish(sock):
    """No segment that comes for this socket is answered any more, as if its machine had lost power.
    Not before its own bytes have arrived: it would go on repeating them."""
    wait_for(lambda: fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0\0\0\0") == b"\0\0\0\0",
             what="the last bytes to arrive")
    program = ctypes.create_string_buffer(RETURN_0, len(RETURN_0))
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER,
                        struct.pack("HxxxxxxP", 1, ctypes.addressof(program)))
    except OSError as e:
        if e.errno != errno.EPERM:
            raise
        pytest.skip("this kernel leaves socket filters to root")


class Cable:
    """Listens where the gateway dials and carries the bytes to the real address. Cut, it refuses
    connections."""

    def __init__(self, address, target, port=LINK):
        self.address, self.target, self.port = address, target, port
        self.ends, self.listener, self.lock = set(), None, threading.Lock()
        self.mend()

    def mend(self):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((self.address, self.port))
        self.listener.listen(8)
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def cut(self):
        """Both sides see the end of the connection; neither is told why."""
        self._end(self.listener)
        with self.lock:
            ends, self.ends = self.ends, set()
        for s in ends:
            self._end(s)

    close = cut

    @staticmethod
    def _end(s):
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        s.close()

    def _accept(self, listener):
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(self.target)
            except OSError:
                if listener.fileno() < 0:
                    return
                continue
            with self.lock:
                self.ends |= {near, far}
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(a, b), daemon=True).start()

    def _carry(self, source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        self._end(source)
        self._end(sink)
        with self.lock:
            self.ends -= {source, sink}
