"""A cable between the gateway and what it dials inside, which a test can cut and mend."""
import socket
import threading

from labnet import LINK


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
