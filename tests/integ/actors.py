"""Users for tests with real servers, which keep every stanza as the bytes that came.

`InsideUser` is an organisation's own XMPP server reduced to one XEP-0114 component behind the
router. `ServerUser` is a client of a real server. Both read in a thread, so that nothing they wait
for can be missed; `canonical` is for comparing what came with what was sent.
"""
import base64
import hashlib
import re
import socket
import threading
import xml.etree.ElementTree as ET
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from labnet import C2S, LINK, WAIT, Timeout

STREAM = "http://etherx.jabber.org/streams"
COMPONENT, CLIENT, SERVER = "jabber:component:accept", "jabber:client", "jabber:server"
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
BIND = "urn:ietf:params:xml:ns:xmpp-bind"
SESSION = "urn:ietf:params:xml:ns:xmpp-session"
REGISTER = "jabber:iq:register"
STANZAS = "urn:ietf:params:xml:ns:xmpp-stanzas"
LANG = "{http://www.w3.org/XML/1998/namespace}lang"


class Ended(Exception):
    """The stream is over."""


class Cutter:
    """Cuts a stream into its header's attributes and the bytes of its depth-1 elements.

    The bytes of all elements that are not cut yet are kept; what was cut is dropped, so that a long
    stream costs no more than a short one."""

    def __init__(self):
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.depth, self.header, self.over = 0, None, False
        self.data, self.base, self.begin, self.empty = b"", 0, 0, True
        self.done = []

    def feed(self, data):
        """Returns the elements that became whole."""
        self.data += data
        self.parser.Parse(data, False)
        keep = self.begin if self.depth > 1 else self.parser.CurrentByteIndex
        if keep > self.base:
            self.data, self.base = self.data[keep - self.base:], keep
        done, self.done = self.done, []
        return done

    def _start(self, name, attributes):
        self.depth += 1
        self.empty = self.depth == 2
        if self.depth == 1:
            self.header = attributes
        elif self.depth == 2:
            self.begin = self.parser.CurrentByteIndex

    def _text(self, _):
        self.empty = False

    def _end(self, _):
        self.depth -= 1
        if self.depth == 0:
            self.over = True
        if self.depth != 1:
            self.empty = False
            return
        at = self.parser.CurrentByteIndex - self.base
        begin = self.begin - self.base
        # For <a/> expat already stands behind the tag, for <a></a> before the end tag.
        if not (self.empty and self.data[begin:at].endswith(b"/>")):
            at = self.data.index(b">", at) + 1
        self.done.append(self.data[begin:at])


class Stanza:
    """One depth-1 element: `raw` as it came, `element` parsed within its stream's namespaces."""

    def __init__(self, raw, content, header):
        self.raw, self.content = raw, content
        declared = " ".join(f"{k}={quoteattr(v)}" for k, v in header.items()
                            if k.startswith("xmlns"))
        self.element = ET.fromstring(f"<s {declared}>".encode() + raw
                                     + b"</s>")[0]

    @property
    def kind(self):
        return self.element.tag.split("}")[-1]

    def get(self, key):
        return self.element.get(key)

    def child(self, name):
        """The first child of a local name, in whatever namespace."""
        return next((c for c in self.element if c.tag.split("}")[-1] == name), None)

    @property
    def body(self):
        child = self.child("body")
        return None if child is None else child.text

    @property
    def condition(self):
        error = self.child("error")
        if error is None:
            return None
        return next((c.tag.split("}")[1] for c in error
                     if c.tag.startswith(f"{{{STANZAS}}}") and not c.tag.endswith("}text")), None)

    def __repr__(self):
        return self.raw[:300].decode("utf-8", "replace")


class Actor:
    """A stream, the thread that reads it, and the stanzas that came."""
    content = None

    def __init__(self, address, port):
        self.sock = socket.create_connection((address, port), WAIT)
        self.sock.settimeout(WAIT)
        self.stanzas, self.arrived, self.over = [], threading.Condition(), None
        self.sending = threading.Lock()
        self.watch = None  # called by the reading thread with each stanza
        self.cutter, self.backlog = Cutter(), []

    # -- before the thread runs

    def _open(self, to, extra=""):
        self.cutter, self.backlog = Cutter(), []
        self.send(f"<?xml version='1.0'?><stream:stream xmlns='{self.content}' "
                  f"xmlns:stream='{STREAM}' to='{to}'{extra}>")
        while self.cutter.header is None:
            self._more()
        return self.cutter.header

    def _more(self):
        data = self.sock.recv(65536)
        if not data:
            raise Ended("end of connection")
        self.backlog += self.cutter.feed(data)

    def _next(self):
        while not self.backlog:
            self._more()
        return Stanza(self.backlog.pop(0), self.content, self.cutter.header)

    def _run(self):
        self.sock.settimeout(None)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        try:
            while not self.cutter.over:
                while self.backlog:
                    self._take(Stanza(self.backlog.pop(0), self.content, self.cutter.header))
                self._more()
            self.send("</stream:stream>")
            why = "closing tag"
        except (Ended, OSError, expat.ExpatError) as e:
            why = str(e) or type(e).__name__
        with self.arrived:
            self.over = why
            self.arrived.notify_all()

    def _take(self, stanza):
        if self.watch:
            self.watch(stanza)
        with self.arrived:
            self.stanzas.append(stanza)
            self.arrived.notify_all()

    # -- for tests

    def send(self, text):
        with self.sending:
            self.sock.sendall(text if isinstance(text, bytes) else text.encode())

    def mark(self):
        return len(self.stanzas)

    def expect(self, kind, timeout=WAIT, since=0, **attrs):
        """The first stanza of a kind after `since` whose attributes are as given (`from_` is
        from; None: absent)."""
        attrs = {k.rstrip("_"): v for k, v in attrs.items()}
        seen = since

        def find():
            nonlocal seen
            while seen < len(self.stanzas):
                s = self.stanzas[seen]
                seen += 1
                if s.kind == kind and all(s.get(k) == v for k, v in attrs.items()):
                    return s
            return None

        found = None
        with self.arrived:
            def ready():
                nonlocal found
                found = find()
                return found or self.over

            self.arrived.wait_for(ready, timeout)
        if found is None:
            raise Timeout(f"{self.jid} waited {timeout:g} s for <{kind}> {attrs}"
                          f"{' (stream over: ' + self.over + ')' if self.over else ''}; the last "
                          f"that came: {self.stanzas[since:][-5:]}")
        return found

    def wait(self, condition, timeout, what):
        with self.arrived:
            if not self.arrived.wait_for(lambda: condition() or self.over, timeout) or self.over:
                raise Timeout(f"{self.jid} waited {timeout:g} s for {what}, over: {self.over}")

    def close(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()


class InsideUser(Actor):
    """romeo@alpha.lab and everybody else there: a component behind the router."""
    content = COMPONENT

    def __init__(self, address, domain, secret, user="romeo", port=LINK):
        super().__init__(address, port)
        self.domain, self.bare, self.jid = domain, f"{user}@{domain}", f"{user}@{domain}/lab"
        ident = self._open(domain)["id"]
        digest = hashlib.sha1((ident + secret).encode()).hexdigest()
        self.send(f"<handshake>{digest}</handshake>")
        answer = self._next()
        assert answer.kind == "handshake", answer
        self._run()

    def stanza(self, kind, to, ident, inner="", type_=None, sender=None, extra=""):
        """The text of a stanza that is plain in the sense of the gateway."""
        type_ = f" type='{type_}'" if type_ else ""
        return (f"<{kind} from='{sender or self.jid}' to='{to}' id='{ident}'{type_}{extra}>"
                f"{inner}</{kind}>")


class ServerUser(Actor):
    """A client that is logged in and available; registers itself (XEP-0077) where it must."""
    content = CLIENT

    def __init__(self, address, domain, user="juliet", password="secret", register=False,
                 port=C2S):
        super().__init__(address, port)
        self.domain, self.bare, self.jid = domain, f"{user}@{domain}", f"{user}@{domain}/lab"
        if register:
            # On a connection of its own: jabberd2 never answers a bind on the same one.
            self._features()
            self._ask(f"<query xmlns='{REGISTER}'><username>{user}</username>"
                      f"<password>{password}</password></query>", to=domain)
            self.close()
            super().__init__(address, port)
        self._features()
        token = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        self.send(f"<auth xmlns='{SASL}' mechanism='PLAIN'>{token}</auth>")
        answer = self._next()
        assert answer.kind == "success", answer
        features = self._features()
        self._ask(f"<bind xmlns='{BIND}'><resource>lab</resource></bind>")
        if features.element.find(f"{{{SESSION}}}session") is not None:
            self._ask(f"<session xmlns='{SESSION}'/>")
        # Who asked for the roster once is told of subscriptions.
        self._ask("<query xmlns='jabber:iq:roster'/>", type_="get")
        self.send("<presence/>")
        self._run()

    def _features(self):
        self._open(self.domain, " version='1.0'")
        features = self._next()
        assert features.kind == "features", features
        return features

    def _ask(self, inner, type_="set", to=None):
        ident = f"q{len(inner)}"
        to = f" to='{to}'" if to else ""
        self.send(f"<iq type='{type_}' id='{ident}'{to}>{inner}</iq>")
        while (answer := self._next()).get("id") != ident:
            pass
        assert answer.get("type") == "result", answer

    def stanza(self, kind, to, ident, inner="", type_=None, sender=None, extra=""):
        """As InsideUser.stanza; the server stamps the sender."""
        type_ = f" type='{type_}'" if type_ else ""
        return f"<{kind} to='{to}' id='{ident}'{type_}{extra}>{inner}</{kind}>"


# ---- comparing ---------------------------------------------------------------------------------

def _own_namespace(element, content):
    """One name for the content namespace, which is another on every kind of stream."""
    for e in element.iter():
        if e.tag.startswith(f"{{{content}}}"):
            e.tag = "{content}" + e.tag.split("}")[1]


def canonical(stanza, order=True, lang=True, references=True):
    """The payload of a stanza as a list of canonical XML, one string for each child.

    Prefixes are rewritten, since their names mean nothing. order=False sorts the children;
    lang=False leaves out the xml:lang of the stanza itself, which is the first string otherwise;
    references=False takes tabs and line ends in attribute values for spaces."""
    element = ET.fromstring(ET.tostring(stanza.element))
    _own_namespace(element, stanza.content)
    if not references:
        for e in element.iter():
            e.attrib.update({k: re.sub("[\t\n]", " ", v) for k, v in e.attrib.items()})
    texts = [ET.canonicalize(ET.tostring(c, encoding="unicode"), rewrite_prefixes=True)
             for c in element if not setattr(c, "tail", None)]
    if not order:
        texts.sort()
    return ([f"xml:lang={element.get(LANG)}"] if lang else []) + texts
