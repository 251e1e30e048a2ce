"""Traffic that is counted: every message that one side sends arrives at the other, once, in order,
or comes back as an error."""
import threading
import time

from labnet import wait_for


class Talker:
    """Sends numbered messages to the other side, `rate` a second, until told to stop."""

    def __init__(self, site, other, name, rate):
        self.user, self.to, self.name, self.rate = site.user, other.user.jid, name, rate
        self.other = other.user
        self.sent, self.over = 0, threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        began = time.monotonic()
        while not self.over.wait(max(0, began + self.sent / self.rate - time.monotonic())):
            self.user.message(self.to, f"{self.name}-{self.sent}", "counted")
            self.sent += 1

    def stop(self):
        self.over.set()
        self.thread.join()

    def see(self, number=10):
        """Waits until as many more were sent: they see the present state."""
        seen = self.sent
        wait_for(lambda: self.sent >= seen + number, what="the traffic")

    def _ids(self, user, **fields):
        prefix = self.name + "-"
        return [int(e["id"][len(prefix):]) for e in user.seen(kind="message", **fields)
                if (e.get("id") or "").startswith(prefix)]

    def ends(self):
        """The numbers of what arrived, and of what came back, when all have come to their end."""
        def ends():
            return self._ids(self.other, to=self.to), self._ids(self.user, type="error")

        wait_for(lambda: sum(map(len, ends())) >= self.sent, 20, f"{self.sent} ends of {self.name}",
                 lambda: f"{[len(e) for e in ends()]} arrived, came back")
        return ends()

    def nothing_lost(self):
        """Returns how many were sent; all of them arrived in order."""
        got, failed = self.ends()
        assert sorted(got + failed) == list(range(self.sent)), "lost or doubled"
        assert got == sorted(got), "out of order"
        assert failed == [], f"{len(failed)} of {self.sent} came back"
        return self.sent


def talk(one, other, rate):
    """Both ways: named by the first letters of their domains."""
    a, b = one.domain[0], other.domain[0]
    return [Talker(one, other, a + b, rate), Talker(other, one, b + a, rate)]
