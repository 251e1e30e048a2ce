"""The scenario that every inside server must pass, whatever carries it: twenty checks between a
user inside and users outside, then what may not pass, then a chat room.

`Scene` says who plays. Everything is one table of functions over it, in an order in which later
ones build on earlier ones (`CHECKS`, `GUARDS`, `ROOM`); `run` goes through a table and returns what
went wrong. `Played` is a user of a remote server that is made of sockets; a user behind a second
gateway (actors.InsideUser) can take the same part.
"""
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Optional

import labnet
from actors import SERVER, Stanza
from labnet import WAIT
from payloads import big_body
from peers import RESULT, Closed, RemoteServer, authorised, dial, message

GIVE_UP = 5  # faults; each may be a long wait
PING, MUC = "urn:xmpp:ping", "http://jabber.org/protocol/muc"
ASK, ANSWER = "<q xmlns='urn:example:ask'/>", "<q xmlns='urn:example:ask' said='yes'/>"


class Played(RemoteServer):
    """A user of a remote server. What he sends goes through streams to the gateway, one for each of
    its domains; what comes to the server is his."""
    content = SERVER

    def __init__(self, lab, host, domain, gateway, user="juliet"):
        super().__init__(lab.ip(host), domain)
        self.gateway, self.out = gateway, {}
        self.bare, self.jid = f"{user}@{domain}", f"{user}@{domain}/lab"

    def stanza(self, kind, to, ident, inner="", type_=None, sender=None, extra=""):
        type_ = f" type='{type_}'" if type_ else ""
        return (f"<{kind} from='{sender or self.jid}' to='{to}' id='{ident}'{type_}{extra}>"
                f"{inner}</{kind}>")

    def send(self, text):
        domain = re.search(r"\bto='(?:[^'@/]*@)?([^'@/]*)", text).group(1)
        if domain not in self.out:
            self.out[domain] = authorised(self.gateway, self.domain, domain)
        self.out[domain].send(text)

    def hang_up(self):
        """The next stanza opens a new stream."""
        for s in self.out.values():
            s.close()
        self.out.clear()

    def mark(self):
        return len(self.stanzas)

    def expect(self, kind, timeout=WAIT, since=0, **attrs):
        """As actors.Actor.expect."""
        attrs = {k.rstrip("_"): v for k, v in attrs.items()}

        def find():
            return next((e for _, e in self.stanzas[since:] if e.tag == f"{{{SERVER}}}{kind}"
                         and all(e.get(k) == v for k, v in attrs.items())), None)

        self.wait(lambda: find() is not None, timeout, f"{self.bare} to get <{kind}> {attrs}")
        return Stanza(ET.tostring(find()), SERVER, {})

    def close(self):
        self.hang_up()
        super().close()


def ids(user):
    """The ids of all stanzas that came to a user."""
    came = [e for _, e in user.stanzas] if isinstance(user, Played) else user.stanzas
    return [s.get("id") or "" for s in came]


@dataclass
class Scene:
    """inside: a user of the server behind the gateway, available. outside: of a remote domain.
    other: of another remote domain. gateway: the process. stranger: a user of the inside server
    whose domain is not one of the gateway's; standby: a bare component that has joined the inside
    server as a gateway does; both None where there is no such thing."""
    inside: object
    outside: object
    other: Played
    gateway: object
    stranger: Optional[object] = None
    standby: Optional[object] = None
    unreachable: str = "nowhere.lab"        # a remote domain without a server
    unreachable_condition: str = "remote-server-not-found"
    unknown_user: str = "service-unavailable"
    delivers_subscribed: bool = True        # else the user sees the roster change alone
    stranger_refused: str = r"stanza\.refused .*reason=foreign-from"  # in the gateway's log
    room: str = ""                          # where ROOM is played: garden@conference.inside.lab
    count: int = 0

    def __post_init__(self):
        self.since = self.gateway.log_size()

    def ident(self, what):
        self.count += 1
        return f"{what}-{self.count}-{self.outside.domain}"


def deliver(scene, sender, receiver, what="message", body="words"):
    """One message, which arrives as it was sent."""
    ident = scene.ident(what)
    sender.send(sender.stanza("message", receiver.jid, ident, f"<body>{body}</body>", "chat"))
    got = receiver.expect("message", timeout=20, id=ident)
    assert (got.get("from"), got.get("to")) == (sender.jid, receiver.jid), got
    assert got.body == body, f"the body is another: {got}"
    return ident


def not_seen(scene, ident, *users):
    """Fences: what came after it has arrived both ways, so this would have too."""
    deliver(scene, scene.inside, scene.outside, "fence")
    deliver(scene, scene.outside, scene.inside, "fence")
    for user in users:
        assert ident not in ids(user), f"{user.jid} got {ident}"


# ---- the twenty ----------------------------------------------------------------------------------

def message_out(s):
    deliver(s, s.inside, s.outside)


def message_out_to_any_other_domain(s):
    deliver(s, s.inside, s.other)


def message_in(s):
    deliver(s, s.outside, s.inside)


def _presence(s, sender, receiver, kind):
    """Between bare addresses, as servers send what concerns the roster."""
    since = receiver.mark()
    sender.send(sender.stanza("presence", receiver.bare, s.ident(kind), type_=kind,
                              sender=sender.bare))
    if kind == "subscribed" and receiver is s.inside and not s.delivers_subscribed:
        receiver.wait(lambda: roster_says(receiver, sender.bare), WAIT, "the roster to change")
        return
    got = receiver.expect("presence", since=since, type=kind, from_=sender.bare)
    assert got.get("to").split("/")[0] == receiver.bare, got


def roster_says(user, jid):
    """Whether a roster push told that the subscription to jid stands."""
    return any(item.get("jid") == jid and item.get("subscription") in ("to", "both")
               for stanza in user.stanzas if stanza.kind == "iq" for query in stanza.element
               for item in query)


def subscribe_out(s):
    _presence(s, s.inside, s.outside, "subscribe")


def subscribed_in(s):
    _presence(s, s.outside, s.inside, "subscribed")


def subscribe_in(s):
    _presence(s, s.outside, s.inside, "subscribe")


def subscribed_out(s):
    _presence(s, s.inside, s.outside, "subscribed")


def presence_in(s):
    since = s.inside.mark()
    s.outside.send(s.outside.stanza("presence", s.inside.bare, s.ident("available"),
                                    "<status>in the orchard</status>"))
    got = s.inside.expect("presence", since=since, type=None, from_=s.outside.jid)
    assert got.child("status").text == "in the orchard", got


def presence_pushed_out(s):
    """The inside server knows the subscription: it tells who may know, unasked."""
    since = s.outside.mark()
    s.inside.send("<presence><status>below the balcony</status></presence>")
    got = s.outside.expect("presence", since=since, type=None, from_=s.inside.jid)
    while got.child("status") is None:  # what an earlier check has caused
        since = s.outside.mark()
        got = s.outside.expect("presence", since=since, type=None, from_=s.inside.jid)
    assert got.child("status").text == "below the balcony", got


def probe_answered(s):
    since = s.outside.mark()
    s.outside.send(s.outside.stanza("presence", s.inside.bare, s.ident("probe"), type_="probe",
                                    sender=s.outside.bare))
    got = s.outside.expect("presence", since=since, type=None, from_=s.inside.jid)
    assert got.get("to").split("/")[0] == s.outside.bare, got


def _iq(s, sender, receiver, ident):
    sender.send(sender.stanza("iq", receiver.jid, ident, ASK, "get"))
    got = receiver.expect("iq", type="get", id=ident, from_=sender.jid)
    assert [c.tag for c in got.element] == ["{urn:example:ask}q"], got


def _iq_result(s, sender, receiver, ident):
    receiver.send(receiver.stanza("iq", sender.jid, ident, ANSWER, "result"))
    got = sender.expect("iq", type="result", id=ident, from_=receiver.jid)
    assert [(c.tag, c.get("said")) for c in got.element] == [("{urn:example:ask}q", "yes")], got


def iq_out(s):
    _iq(s, s.inside, s.outside, f"ask-out-{s.outside.domain}")


def iq_out_result(s):
    _iq_result(s, s.inside, s.outside, f"ask-out-{s.outside.domain}")


def iq_in_to_the_server(s):
    ident = s.ident("ping")
    s.outside.send(s.outside.stanza("iq", s.inside.domain, ident, f"<ping xmlns='{PING}'/>", "get"))
    got = s.outside.expect("iq", id=ident, from_=s.inside.domain)
    assert got.get("type") == "result", got


def iq_in_to_a_full_address(s):
    _iq(s, s.outside, s.inside, f"ask-in-{s.outside.domain}")


def iq_in_result(s):
    _iq_result(s, s.outside, s.inside, f"ask-in-{s.outside.domain}")


def unknown_user_refused(s):
    ident, nobody = s.ident("nobody"), f"nobody@{s.inside.domain}"
    s.outside.send(s.outside.stanza("message", nobody, ident, "<body>hello?</body>", "chat"))
    got = s.outside.expect("message", type="error", id=ident, from_=nobody)
    assert got.condition == s.unknown_user, got


def gateway_error_reaches_the_user(s):
    ident, nobody = s.ident("unreachable"), f"nobody@{s.unreachable}"
    s.inside.send(s.inside.stanza("message", nobody, ident, "<body>hello?</body>", "chat"))
    got = s.inside.expect("message", type="error", id=ident, from_=nobody)
    assert got.condition == s.unreachable_condition, got


def foreign_to_foreign_goes_nowhere(s):
    """From outside: the gateway serves no such pair. From what has joined the inside server as a
    gateway: that server does not send it back out."""
    ident = s.ident("foreign")
    stream = dial(s.other.gateway, s.other.domain, s.inside.domain)
    stream.ask_result(s.other.domain, s.outside.domain)
    assert stream.expect(RESULT).get("type") == "error"
    stream.close()
    stream = authorised(s.other.gateway, s.other.domain, s.inside.domain)
    stream.send(message(s.other.jid, s.outside.jid, ident))
    assert stream.read_error() in ("improper-addressing", "host-unknown", "not-authorized")
    since = s.gateway.log_size()
    if s.standby:
        s.standby.send(message(s.other.jid, s.outside.jid, ident))
        s.standby.send(message(s.other.jid, s.inside.jid, f"{ident}-fence"))
        s.inside.expect("message", id=f"{ident}-fence")
    not_seen(s, ident, s.outside, s.other)
    assert "stanza.refused" not in s.gateway.log(since), "the server sent it back to the gateway"


def big_out(s):
    deliver(s, s.inside, s.outside, "big", big_body())


def big_in(s):
    deliver(s, s.outside, s.inside, "big", big_body())


def link_alive(s):
    message_in(s)
    message_out(s)
    assert "link.down" not in s.gateway.log(s.since)


# The nineteenth is done once for each direction.
CHECKS = (message_out, message_out_to_any_other_domain, message_in, subscribe_out, subscribed_in,
          subscribe_in, subscribed_out, presence_in, presence_pushed_out, probe_answered, iq_out,
          iq_out_result, iq_in_to_the_server, iq_in_to_a_full_address, iq_in_result,
          unknown_user_refused, gateway_error_reaches_the_user, foreign_to_foreign_goes_nowhere,
          big_out, big_in, link_alive)


# ---- what may not pass ---------------------------------------------------------------------------

def forged_local_sender_refused(s):
    """The servers inside deliver whatever sender the gateway names: it alone stands before them."""
    ident = s.ident("forged")
    stream = authorised(s.other.gateway, s.other.domain, s.inside.domain)
    stream.send(message(f"friend@{s.inside.domain}/x", s.inside.jid, ident))
    assert stream.read_error() == "invalid-from"
    stream = dial(s.other.gateway, s.inside.domain, s.inside.domain, features=False)
    try:
        stream.read_header()
        stream.ask_result(s.inside.domain, s.inside.domain)
        while (answer := stream.read()) is not None:
            assert answer.get("type") != "valid", ET.tostring(answer)
    except Closed:
        pass
    not_seen(s, ident, s.inside)


def foreign_sender_inside_refused(s):
    """A user of the same server whose domain the gateway does not serve."""
    ident = s.ident("stranger")
    s.stranger.send(s.stranger.stanza("message", s.outside.jid, ident, "<body>let me out</body>"))
    s.gateway.wait_log(s.stranger_refused, s.since)
    not_seen(s, ident, s.outside)


GUARDS = (forged_local_sender_refused, foreign_sender_inside_refused)


# ---- a chat room of the inside -------------------------------------------------------------------

def _join(s, user, nick):
    user.send(user.stanza("presence", f"{s.room}/{nick}", s.ident("join"), f"<x xmlns='{MUC}'/>"))
    return user.expect("presence", from_=f"{s.room}/{nick}", type=None)


def room_is_opened(s):
    _join(s, s.inside, "host")
    ident = s.ident("instant")
    s.inside.send(s.inside.stanza("iq", s.room, ident, f"<query xmlns='{MUC}#owner'>"
                                  "<x xmlns='jabber:x:data' type='submit'/></query>", "set"))
    assert s.inside.expect("iq", id=ident).get("type") == "result"


def room_lets_the_remote_user_in(s):
    got = _join(s, s.outside, "guest")
    assert any(c.get("code") == "110" for x in got.element for c in x), got
    s.inside.expect("presence", from_=f"{s.room}/guest", type=None)
    s.outside.expect("presence", from_=f"{s.room}/host", type=None)


def _says(s, speaker, nick):
    ident = s.ident("says")
    speaker.send(speaker.stanza("message", s.room, ident, f"<body>{ident}</body>", "groupchat"))
    for listener in (s.inside, s.outside):
        got = listener.expect("message", id=ident, from_=f"{s.room}/{nick}")
        assert (got.get("type"), got.body) == ("groupchat", ident), got


def room_hears_the_remote_user(s):
    _says(s, s.outside, "guest")


def room_hears_the_local_user(s):
    _says(s, s.inside, "host")


def room_sees_the_remote_user_leave(s):
    s.outside.send(s.outside.stanza("presence", f"{s.room}/guest", s.ident("leave"),
                                    type_="unavailable"))
    s.inside.expect("presence", from_=f"{s.room}/guest", type="unavailable")
    s.outside.expect("presence", from_=f"{s.room}/guest", type="unavailable")


ROOM = (room_is_opened, room_lets_the_remote_user_in, room_hears_the_remote_user,
        room_hears_the_local_user, room_sees_the_remote_user_leave)


# ---- running -------------------------------------------------------------------------------------

def run(scene, checks=CHECKS + GUARDS):
    """What went wrong, as (check, what)."""
    faults = []
    for check in checks:
        try:
            check(scene)
        except (AssertionError, labnet.LabError, Closed, OSError) as e:
            faults.append((check.__name__, f"{type(e).__name__}: {e}"))
            if len(faults) == GIVE_UP:
                break
    return faults


def assert_passes(scene, checks=CHECKS + GUARDS):
    faults = run(scene, checks)
    assert not faults, "\n".join(f"{name}: {what}" for name, what in faults)
