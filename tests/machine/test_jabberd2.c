/* The jabberd2 machine: dialogues as a real router leads them, everything that can go wrong in each
 * step, memory that runs out anywhere, and random walks. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "core/base/mem.h"
#include "tests/fake/fake.h"
#include "tests/fake/jabberd2_bench.h"

#define N        "xmlns='" NS_JABBERD2 "'"
#define CLIENT   "xmlns='jabber:client'"
#define END      "</stream:stream>"
#define OUR_HEAD "<?xml version='1.0'?><stream:stream xmlns:stream='" NS_STREAM "' version='1.0'>"
#define ERROR(c, text)                                                                             \
    "SEND <stream:error><" c " xmlns='" NS_STREAM_ERROR "'/><text xmlns='" NS_STREAM_ERROR         \
    "' xml:lang='en'>" text "</text></stream:error>" END "\nLOG link.refused reason=" c            \
    " msg=" text "\n"
#define REFUSAL(c, text, reason) ERROR(c, text) "CLOSE " reason " " text "\n"
#define CLOSE_TAG                "SEND " END "\n"
#define FAILED(condition)                                                                          \
    "<stream:error xmlns:stream='" NS_STREAM "'><" condition " xmlns='" NS_STREAM_ERROR            \
    "'/></stream:error>"

#define START     JB_HEADER JB_FEATURES(JB_MECHANISMS)
#define TLS_START JB_HEADER JB_FEATURES(JB_STARTTLS JB_MECHANISMS) "<proceed xmlns='" NS_TLS "'/>"
#define NAME(n)   "<presence " N " from='" n "'></presence>"
#define GONE(n)   "<presence " N " type='unavailable' from='" n "'></presence>"

#define SEND_AUTH    "SEND <auth xmlns='" NS_SASL "' mechanism='DIGEST-MD5'/>\n"
#define SEND_BIND    "SEND <bind " N " name='gw1'/>\n"
#define SEND_DEFAULT "SEND <bind " N " name='s2s'><default/></bind>\n"
#define PING_ROUTE                                                                                 \
    "<route " N " from='gw1' to='gw1'><iq " CLIENT " type='get' id='" JB_PING_ID                   \
    "' from='gw1' to='gw1'><ping xmlns='" NS_PING "'/></iq></route>"
#define SEND_PING "SEND " PING_ROUTE "\n"
#define PONG                                                                                       \
    "<route " N " to='gw1' from='gw1'><iq " CLIENT " to='gw1' from='gw1' id='" JB_PING_ID          \
    "' type='get'><ping xmlns='" NS_PING "'></ping></iq></route>"
#define ROUTE(attrs, stanza) "<route " N " " attrs ">" stanza "</route>"
#define OUTWARD(attrs)       ROUTE("from='sm' to='b.lab'", "<message " CLIENT " id='1' " attrs "/>")
#define FAR                  "from='a@a.lab/x' to='c@b.lab'"
#define NO_KEY                                                                                     \
    "00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:"   \
    "00:"                                                                                          \
    "00"
#define REFUSED "the router does not accept user and secret"

/* ---- one step each --------------------------------------------------------------------------- */

struct rule {
    const char *rule;
    unsigned profile;
    const char *before, *now;
    const char *want; /* all that happens now */
    enum link_state state;
};

static const struct rule setup_rules[] = {
    {"features are waited for", JB_PLAIN, "", JB_HEADER, "", LINK_HANDSHAKE},
    {"an older stream", JB_PLAIN, "", "<stream:stream xmlns:stream='" NS_STREAM "'>",
     REFUSAL("unsupported-version", "a stream of version 1.0 was expected", "error-sent"),
     LINK_RESTING},
    {"SASL", JB_PLAIN, JB_HEADER, JB_FEATURES(JB_MECHANISMS), SEND_AUTH, LINK_HANDSHAKE},
    {"no features", JB_PLAIN, JB_HEADER, JB_BOUND,
     REFUSAL("unsupported-stanza-type", "stream features were expected", "error-sent"),
     LINK_RESTING},
    {"no mechanism", JB_PLAIN, JB_HEADER, JB_FEATURES(""),
     CLOSE_TAG "CLOSE not-authorized the router does not offer DIGEST-MD5\n", LINK_RESTING},
    {"other mechanisms", JB_PLAIN, JB_HEADER,
     JB_FEATURES("<mechanisms xmlns='" NS_SASL "'><mechanism>PLAIN</mechanism><mechanism> "
                 "DIGEST-MD5-X</mechanism></mechanisms><mechanism>DIGEST-MD5</mechanism>"),
     CLOSE_TAG "CLOSE not-authorized the router does not offer DIGEST-MD5\n", LINK_RESTING},
    {"among others", JB_PLAIN, JB_HEADER,
     JB_FEATURES("<mechanisms xmlns='" NS_SASL "'><mechanism>PLAIN</mechanism><mechanism> "
                 "DIGEST-MD5\n</mechanism></mechanisms>"),
     SEND_AUTH, LINK_HANDSHAKE},
    {"response", JB_PLAIN, START, JB_CHALLENGE,
     "SEND <response xmlns='" NS_SASL "'>" JB_RESPONSE_TEXT "</response>\n", LINK_HANDSHAKE},
    {"challenge is no base64", JB_PLAIN, START, "<challenge xmlns='" NS_SASL "'>x</challenge>",
     "SEND <abort xmlns='" NS_SASL "'/>\n" CLOSE_TAG
     "CLOSE not-authorized the challenge is no base64\n",
     LINK_RESTING},
    {"empty challenge", JB_PLAIN, START, "<challenge xmlns='" NS_SASL "'/>",
     "SEND <abort xmlns='" NS_SASL "'/>\n" CLOSE_TAG
     "CLOSE not-authorized the challenge has not exactly one nonce\n",
     LINK_RESTING},
    {"success without a challenge", JB_PLAIN, START, JB_SUCCESS,
     REFUSAL("unsupported-stanza-type", "the next step of SASL was expected", "error-sent"),
     LINK_RESTING},
    {"user not accepted", JB_PLAIN, START,
     "<failure xmlns='" NS_SASL "'><invalid-mechanism/></failure>",
     "LOG link.error.received reason=invalid-mechanism msg=" REFUSED "\n" CLOSE_TAG
     "CLOSE not-authorized " REFUSED "\n",
     LINK_RESTING},
    {"secret not accepted", JB_PLAIN, START JB_CHALLENGE, "<failure xmlns='" NS_SASL "'/>",
     "LOG link.error.received reason=failure msg=" REFUSED "\n" CLOSE_TAG
     "CLOSE not-authorized " REFUSED "\n",
     LINK_RESTING},
    {"proof and new stream", JB_PLAIN, START JB_CHALLENGE, JB_SUCCESS, "RESET\nSEND " OUR_HEAD "\n",
     LINK_HEADER},
    {"proof before success", JB_PLAIN, START JB_CHALLENGE,
     "<challenge xmlns='" NS_SASL "'>" JB_PROOF_TEXT "</challenge>",
     "SEND <response xmlns='" NS_SASL "'/>\n", LINK_HANDSHAKE},
    {"and then success", JB_PLAIN,
     START JB_CHALLENGE "<challenge xmlns='" NS_SASL "'>" JB_PROOF_TEXT "</challenge>",
     "<success xmlns='" NS_SASL "'/>", "RESET\nSEND " OUR_HEAD "\n", LINK_HEADER},
    {"success without proof", JB_PLAIN, START JB_CHALLENGE, "<success xmlns='" NS_SASL "'/>",
     REFUSAL("not-authorized", "no proof that you know the secret", "not-authorized"),
     LINK_RESTING},
    {"wrong proof", JB_PLAIN, START JB_CHALLENGE,
     "<success xmlns='" NS_SASL
     "'>cnNwYXV0aD0wMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMA==</success>",
     REFUSAL("not-authorized", "no proof that you know the secret", "not-authorized"),
     LINK_RESTING},
    {"something else for proof", JB_PLAIN, START JB_CHALLENGE, JB_BOUND,
     REFUSAL("unsupported-stanza-type", "the next step of SASL was expected", "error-sent"),
     LINK_RESTING},
    {"bind", JB_PLAIN, START JB_CHALLENGE JB_SUCCESS JB_HEADER, JB_FEATURES(""), SEND_BIND,
     LINK_HANDSHAKE},
    {"up", JB_PLAIN, JB_AUTHENTIC, JB_BOUND, "LIMITS\nREADY\n" SEND_DEFAULT SEND_PING, LINK_UP},
    {"names before that", JB_PLAIN, JB_AUTHENTIC, NAME("a.lab"),
     "LOG link.domain.up domain=a.lab\n", LINK_HANDSHAKE},
    {"own name taken", JB_PLAIN, JB_AUTHENTIC, "<bind " N " error='409'></bind>",
     CLOSE_TAG "CLOSE conflict another connection has our name on the router\n", LINK_RESTING},
    {"own name forbidden", JB_PLAIN, JB_AUTHENTIC, "<bind " N " error='403'></bind>",
     CLOSE_TAG "CLOSE not-authorized the router does not let this user bind our name\n",
     LINK_RESTING},
    {"own name bad", JB_PLAIN, JB_AUTHENTIC, "<bind " N " error='400'></bind>",
     CLOSE_TAG "CLOSE error-received the router refuses to bind our name\n", LINK_RESTING},
    {"no answer to bind", JB_PLAIN, JB_AUTHENTIC, "<bind/>",
     REFUSAL("unsupported-stanza-type", "an answer to bind was expected", "error-sent"),
     LINK_RESTING},
    {"a route too early", JB_PLAIN, JB_AUTHENTIC, OUTWARD(FAR),
     REFUSAL("not-authorized", "a stanza before the handshake", "error-sent"), LINK_RESTING},
    {"names do not come before authentication", JB_PLAIN, START, NAME("a.lab"),
     REFUSAL("unsupported-stanza-type", "the next step of SASL was expected", "error-sent"),
     LINK_RESTING},
    {"stream error", JB_PLAIN, JB_HEADER, FAILED("host-unknown"),
     "LOG link.error.received reason=host-unknown\n" CLOSE_TAG "CLOSE not-authorized\n",
     LINK_RESTING},
    {"bad XML", JB_PLAIN, JB_HEADER, "<a></b>",
     REFUSAL("not-well-formed", "mismatched tag", "error-sent"), LINK_RESTING},
    {"a default namespace", JB_PLAIN, "", "<stream:stream " N " xmlns:stream='" NS_STREAM "'>",
     REFUSAL("invalid-namespace", "wrong content namespace", "error-sent"), LINK_RESTING},
    {"too slow", JB_PLAIN, START, JB_TIME,
     REFUSAL("connection-timeout", "the link was not set up in time", "setup-timeout"),
     LINK_RESTING},
    {"a second header", JB_PLAIN, JB_AUTHENTIC, JB_BEGIN, "", LINK_HANDSHAKE},
    {"closed", JB_PLAIN, START, END, CLOSE_TAG "CLOSE peer-closed\n", LINK_RESTING},
    {"cut", JB_PLAIN, START, JB_LOST, "CLOSE lost abort\n", LINK_RESTING},
    {"drain", JB_PLAIN, START, JB_DRAIN, CLOSE_TAG, LINK_CLOSING},
    {"drain before the header", JB_PLAIN, "", JB_DRAIN, CLOSE_TAG, LINK_CLOSING},
    {"drained before it is up", JB_PLAIN, START JB_DRAIN, JB_CHALLENGE END,
     "LOG link.element.odd name=challenge\nCLOSE drained\n", LINK_RESTING},
};

static const struct rule tls_rules[] = {
    {"taken when offered", JB_PLAIN, JB_HEADER, JB_FEATURES(JB_MECHANISMS JB_STARTTLS),
     "SEND " JB_STARTTLS "\n", LINK_HANDSHAKE},
    {"required, not offered", JB_REQUIRE, JB_HEADER, JB_FEATURES(JB_MECHANISMS),
     CLOSE_TAG "CLOSE tls-not-offered the router offers no TLS, which is required here\n",
     LINK_RESTING},
    {"trusted, not offered", JB_TRUST, JB_HEADER, JB_FEATURES(JB_MECHANISMS),
     CLOSE_TAG "CLOSE tls-not-offered the router offers no TLS, which is required here\n",
     LINK_RESTING},
    {"proceed", JB_PLAIN, JB_HEADER JB_FEATURES(JB_STARTTLS), "<proceed xmlns='" NS_TLS "'/>",
     "TLS_START\n", LINK_TLS},
    {"failure", JB_PLAIN, JB_HEADER JB_FEATURES(JB_STARTTLS), "<failure xmlns='" NS_TLS "'/>",
     CLOSE_TAG "CLOSE tls-refused the router offered TLS and then refused it\n", LINK_RESTING},
    {"neither", JB_PLAIN, JB_HEADER JB_FEATURES(JB_STARTTLS), JB_SUCCESS,
     REFUSAL("unsupported-stanza-type", "an answer to starttls was expected", "error-sent"),
     LINK_RESTING},
    {"new header, any certificate", JB_PLAIN, TLS_START, JB_TLS_OTHER,
     "LOG tls.up tls=TLSv1.3 cipher=\nSEND " OUR_HEAD "\n", LINK_HEADER},
    {"required, any certificate", JB_REQUIRE, TLS_START, JB_TLS_OTHER,
     "LOG tls.up tls=TLSv1.3 cipher=\nSEND " OUR_HEAD "\n", LINK_HEADER},
    {"behind TLS: no more TLS, SASL", JB_REQUIRE, TLS_START JB_TLS_UP JB_HEADER,
     JB_FEATURES(JB_STARTTLS JB_MECHANISMS), SEND_AUTH, LINK_HANDSHAKE},
    {"up behind TLS", JB_TRUST, TLS_START JB_TLS_UP JB_AUTHENTIC, JB_BOUND,
     "LIMITS\nREADY\n" SEND_DEFAULT SEND_PING, LINK_UP},
    {"left alone", JB_NO_TLS, JB_HEADER, JB_FEATURES(JB_STARTTLS JB_MECHANISMS), SEND_AUTH,
     LINK_HANDSHAKE},
    {"from the first byte", JB_DIRECT, "", JB_TLS_UP,
     "LOG tls.up tls=TLSv1.3 cipher=\nLOG link.trust reason=root peer_name=router.lab key=" NO_KEY
     " chain=ok\nSEND " OUR_HEAD "\n",
     LINK_HEADER},
    {"no TLS inside TLS", JB_DIRECT, JB_TLS_UP JB_HEADER, JB_FEATURES(JB_STARTTLS JB_MECHANISMS),
     SEND_AUTH, LINK_HANDSHAKE},
    {"clear text where TLS is due", JB_DIRECT, "", JB_HEADER, "CLOSE tls-failed abort\n",
     LINK_RESTING},
    {"handshake failed", JB_PLAIN, TLS_START, JB_TLS_FAILED, "CLOSE tls-failed abort\n",
     LINK_RESTING},
    {"cut in the handshake", JB_PLAIN, TLS_START, JB_LOST, "CLOSE lost abort\n", LINK_RESTING},
    {"drain in the handshake", JB_PLAIN, TLS_START, JB_DRAIN, "CLOSE drained abort\n",
     LINK_RESTING},
    {"slow handshake", JB_PLAIN, TLS_START, JB_TIME,
     "CLOSE setup-timeout abort the link was not set up in time\n", LINK_RESTING},
};

#define UP_ACTIVE  JB_UP JB_ACTIVE PONG NAME("a.lab")
#define UP_STANDBY JB_UP JB_TAKEN PONG NAME("a.lab")
#define UNDELIVERED_LOG(reason)                                                                    \
    "LOG link.route.undelivered reason=" reason " from=c@b.lab to=a@a.lab\n"
#define OURS(attrs)        "<message " CLIENT " id='7' from='c@b.lab' to='a@a.lab' " attrs "/>"
#define ODD(from, to, msg) "LOG link.route.odd " from to "msg=" msg "\nDROP\n"

static const struct rule up_rules[] = {
    {"active", JB_PLAIN, JB_UP, JB_ACTIVE, "LOG link.active name=s2s\n", LINK_UP},
    {"standby", JB_PLAIN, JB_UP, JB_TAKEN, "LOG link.standby name=s2s reason=409\n", LINK_UP},
    {"default forbidden", JB_PLAIN, JB_UP, "<bind " N " error='403'/>",
     "LOG link.standby name=s2s reason=403\n", LINK_UP},
    {"an answer that nobody waits for", JB_PLAIN, UP_ACTIVE, JB_TAKEN,
     "LOG link.element.odd name=bind\n", LINK_UP},
    {"s2s has come: nothing new", JB_PLAIN, UP_STANDBY, NAME("s2s") NAME("gw2") NAME("gw1"), "",
     LINK_UP},
    {"s2s is gone", JB_PLAIN, UP_STANDBY, GONE("s2s"), SEND_DEFAULT, LINK_UP},
    {"another was faster", JB_PLAIN, UP_STANDBY GONE("s2s"), JB_TAKEN GONE("s2s") GONE("s2s"),
     "LOG link.standby name=s2s reason=409\n" SEND_DEFAULT, LINK_UP},
    {"takes over", JB_PLAIN, UP_STANDBY GONE("s2s"), JB_ACTIVE OUTWARD(FAR),
     "LOG link.active name=s2s\nDELIVER a.lab b.lab id=1\n", LINK_UP},
    {"loses it", JB_PLAIN, UP_ACTIVE, GONE("s2s") JB_TAKEN,
     SEND_DEFAULT "LOG link.standby name=s2s reason=409\n", LINK_UP},
    {"a domain", JB_PLAIN, UP_ACTIVE,
     NAME("B\xc3\xbc"
          "cher.Lab") NAME("b\xc3\xbc"
                           "cher.lab"),
     "LOG link.domain.up domain=xn--bcher-kva.lab\n", LINK_UP},
    {"no domains", JB_PLAIN, UP_ACTIVE,
     NAME("sm") NAME("c2s") NAME("") NAME("a..lab") NAME("1.2.3.4") "<presence " N "/>", "",
     LINK_UP},
    {"a domain goes", JB_PLAIN, UP_ACTIVE, GONE("A.lab") GONE("a.lab") GONE("z.lab"),
     "LOG link.domain.down domain=a.lab\n", LINK_UP},
    {"a strange element", JB_PLAIN, UP_ACTIVE, "<throttle " N "/><x xmlns='y'/>",
     "LOG link.element.odd name=throttle\nLOG link.element.odd name=x\n", LINK_UP},

    {"a stanza", JB_PLAIN, UP_ACTIVE, OUTWARD(FAR), "DELIVER a.lab b.lab id=1\n", LINK_UP},
    {"a stanza from another name", JB_PLAIN, UP_ACTIVE,
     ROUTE("from='a.lab' to='b.lab'",
           "<iq " CLIENT " type='get' id='2' " FAR "><q xmlns='x'/></iq>"),
     "DELIVER a.lab b.lab id=2\n", LINK_UP},
    {"without from", JB_PLAIN, UP_ACTIVE, OUTWARD("to='b@b.lab'"), "DROP\n", LINK_UP},
    {"with a bad to", JB_PLAIN, UP_ACTIVE, OUTWARD("from='a@a.lab' to='@'"),
     "BOUNCE modify jid-malformed id=1\n", LINK_UP},
    {"without to", JB_PLAIN, UP_ACTIVE, OUTWARD("from='a@a.lab'"),
     "BOUNCE modify bad-request id=1\n", LINK_UP},
    {"an error without to", JB_PLAIN, UP_ACTIVE, OUTWARD("type='error' from='a@a.lab'"), "DROP\n",
     LINK_UP},
    {"sm asks what we are", JB_PLAIN, UP_ACTIVE,
     ROUTE("from='sm' to='s2s'", "<iq " CLIENT " type='get' id='3' from='sm' to='s2s'/>"), "DROP\n",
     LINK_UP},
    {"sm asks our own name", JB_PLAIN, UP_STANDBY,
     ROUTE("from='sm' to='gw1'", "<iq " CLIENT " type='get' id='3' from='sm' to='gw1'/>"), "DROP\n",
     LINK_UP},
    {"nobody asks our own name", JB_PLAIN, UP_STANDBY,
     ROUTE("from='sm' to='gw1'", "<iq " CLIENT " type='get' id='3' to='gw1'/>"), "DROP\n", LINK_UP},
    {"a user asks our own name", JB_PLAIN, UP_STANDBY,
     ROUTE("from='a.lab' to='gw1'",
           "<iq " CLIENT " type='get' id='3' from='a@a.lab/x' to='gw1'><q xmlns='x'/></iq>"),
     "DELIVER a.lab gw1 id=3\n", LINK_UP},
    {"standby, but by our name", JB_PLAIN, UP_STANDBY,
     ROUTE("from='sm' to='gw1'", "<message " CLIENT " id='3' " FAR "/>"),
     "DELIVER a.lab b.lab id=3\n", LINK_UP},
    {"standby, for somebody else", JB_PLAIN, UP_STANDBY, OUTWARD(FAR),
     ODD("from=sm ", "to=b.lab ", "it is for a name that is not ours"), LINK_UP},
    {"for nobody, standby", JB_PLAIN, UP_STANDBY, ROUTE("from='sm'", "<message " CLIENT "/>"),
     ODD("from=sm ", "", "it is for a name that is not ours"), LINK_UP},
    {"no stanza", JB_PLAIN, UP_ACTIVE, ROUTE("from='sm' to='s2s'", ""),
     ODD("from=sm ", "to=s2s ", "there is nothing in it"), LINK_UP},
    {"two stanzas", JB_PLAIN, UP_ACTIVE,
     ROUTE("from='sm' to='s2s'", "<message " CLIENT "/><message " CLIENT "/>"),
     ODD("from=sm ", "to=s2s ", "there is more than a stanza in it"), LINK_UP},
    {"text", JB_PLAIN, UP_ACTIVE, ROUTE("from='sm' to='s2s'", "hello"),
     ODD("from=sm ", "to=s2s ", "there is text in it"), LINK_UP},
    {"wrong namespace", JB_PLAIN, UP_ACTIVE, ROUTE("to='s2s'", "<message/>"),
     ODD("", "to=s2s ", "what is in it is no stanza in jabber:client"), LINK_UP},
    {"a stanza without a route", JB_PLAIN, UP_ACTIVE, JB_BARE,
     ODD("", "", "it came without a route"), LINK_UP},
    {"broadcast and log", JB_PLAIN, UP_ACTIVE,
     ROUTE("type='broadcast' from='sm'", "<message " CLIENT " " FAR "/>")
         ROUTE("type='log' from='sm'", ""),
     "", LINK_UP},
    {"the link stays", JB_PLAIN, UP_ACTIVE ROUTE("to='s2s'", "x"), OUTWARD(FAR),
     "DELIVER a.lab b.lab id=1\n", LINK_UP},
    {"bad XML in a route", JB_PLAIN, UP_ACTIVE, ROUTE("to='s2s'", "<!--x-->"),
     REFUSAL("restricted-xml", "comment", "error-sent"), LINK_RESTING},
    {"text between routes", JB_PLAIN, UP_ACTIVE, "x",
     REFUSAL("bad-format", "text directly inside the stream", "error-sent"), LINK_RESTING},

    {"came back: nobody has the domain", JB_PLAIN, UP_ACTIVE,
     ROUTE("error='404' from='s2s' to='a.lab'", OURS("")),
     UNDELIVERED_LOG("404") "UNDELIVERED wait remote-server-timeout id=7 local=a.lab "
                            "remote=b.lab\n",
     LINK_UP},
    {"came back as if for the world", JB_PLAIN, UP_ACTIVE, ROUTE("from='gw1' to='a.lab'", OURS("")),
     UNDELIVERED_LOG("no-route") "UNDELIVERED wait remote-server-timeout id=7 local=a.lab "
                                 "remote=b.lab\n",
     LINK_UP},
    {"came back: not allowed", JB_PLAIN, UP_STANDBY,
     ROUTE("error='401' from='gw1' to='a.lab'", OURS("type='chat'")),
     UNDELIVERED_LOG("401") "UNDELIVERED wait internal-server-error id=7 local=a.lab "
                            "remote=b.lab\n",
     LINK_UP},
    {"came back: no error for an error", JB_PLAIN, UP_ACTIVE,
     ROUTE("error='404' from='gw1' to='a.lab'", OURS("type='error'")),
     UNDELIVERED_LOG("404") "DROP\n", LINK_UP},
    {"came back: nobody to tell", JB_PLAIN, UP_ACTIVE,
     ROUTE("error='404' from='gw1' to='a.lab'", "<message " CLIENT "/>"),
     "LOG link.route.undelivered reason=404\nDROP\n", LINK_UP},
    {"came back: empty", JB_PLAIN, UP_ACTIVE, ROUTE("error='404' from='gw1' to='a.lab'", ""),
     ODD("from=gw1 ", "to=a.lab ", "there is nothing in it"), LINK_UP},

    {"the ping is back", JB_PLAIN, JB_UP, PONG, "", LINK_UP},
    {"the ping is back with an error", JB_PLAIN, JB_UP,
     "<route " N " error='404' to='gw1' from='gw1'><iq " CLIENT " from='gw1' id='" JB_PING_ID
     "' type='get'/></route>",
     "", LINK_UP},
    {"events of others", JB_PLAIN, UP_ACTIVE, JB_OTHERS JB_TLS_UP JB_BEGIN, "", LINK_UP},
    {"stream error", JB_PLAIN, UP_ACTIVE, FAILED("conflict"),
     "LOG link.error.received reason=conflict\n" CLOSE_TAG "CLOSE conflict\n", LINK_RESTING},
    {"closed by the router", JB_PLAIN, UP_ACTIVE, END, CLOSE_TAG "CLOSE peer-closed\n",
     LINK_RESTING},
    {"cut", JB_PLAIN, UP_ACTIVE, JB_LOST JB_LOST JB_DRAIN, "CLOSE lost abort\n", LINK_RESTING},
    {"drain", JB_PLAIN, UP_ACTIVE, JB_DRAIN, CLOSE_TAG, LINK_CLOSING},
    {"taken over", JB_PLAIN, UP_ACTIVE, JB_CONFLICT,
     ERROR("conflict", "replaced by a new connection"), LINK_CLOSING},
    {"still delivers, still learns", JB_PLAIN, UP_ACTIVE JB_DRAIN,
     OUTWARD(FAR) GONE("a.lab") GONE("s2s") JB_DRAIN,
     "DELIVER a.lab b.lab id=1\nLOG link.domain.down domain=a.lab\n", LINK_CLOSING},
    {"drained", JB_PLAIN, UP_ACTIVE JB_DRAIN, END, "CLOSE drained\n", LINK_RESTING},
    {"not answered", JB_PLAIN, UP_ACTIVE JB_DRAIN, JB_TIME, "CLOSE drained\n", LINK_RESTING},
    {"rubbish instead", JB_PLAIN, UP_ACTIVE JB_DRAIN, "x", "CLOSE drained\n", LINK_RESTING},
};

static void play_rule(const struct rule *r, size_t piece)
{
    static struct jb b;
    assert_true(jb_open(&b, r->profile));
    jb_play(&b, str_c(r->before), piece);
    jb_forget(&b);
    jb_play(&b, str_c(r->now), piece);
    if (strcmp(b.text, r->want) != 0)
        fail_msg("%s:\n%s\nbut expected:\n%s", r->rule, b.text, r->want);
    if (b.m.end.state != r->state)
        fail_msg("%s: in %s", r->rule, link_state_name(b.m.end.state));
    if (b.wrong != NULL)
        fail_msg("%s: not so: %s", r->rule, b.wrong);
    jb_close(&b);
}

static void play_rules(const struct rule *r, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        play_rule(&r[i], 0);
        play_rule(&r[i], 1);
        play_rule(&r[i], 37);
    }
}

static void test_setup(void **state)
{
    (void)state;
    play_rules(setup_rules, sizeof setup_rules / sizeof setup_rules[0]);
}

static void test_tls(void **state)
{
    (void)state;
    play_rules(tls_rules, sizeof tls_rules / sizeof tls_rules[0]);
}

static void test_up(void **state)
{
    (void)state;
    play_rules(up_rules, sizeof up_rules / sizeof up_rules[0]);
}

/* ---- longer stories -------------------------------------------------------------------------- */

static struct jb bench; /* large */

static void open_with(const char *script)
{
    assert_true(jb_open(&bench, JB_PLAIN));
    jb_play(&bench, str_c(script), 0);
    jb_forget(&bench);
}

static void expect(const char *script, const char *want)
{
    jb_play(&bench, str_c(script), 0);
    assert_string_equal(bench.text, want);
    assert_null(bench.wrong);
    jb_forget(&bench);
}

static void test_trust(void **state)
{
    (void)state;
    assert_true(jb_open(&bench, JB_TRUST));
    jb_play(&bench, STR(TLS_START JB_TLS_UP), 0);
    assert_non_null(strstr(bench.text, "LOG link.trust reason=root"));
    assert_true(bench.m.judged && trust_ok(bench.m.verdict));
    assert_int_equal(bench.m.end.state, LINK_HEADER);
    jb_close(&bench);

    assert_true(jb_open(&bench, JB_TRUST));
    jb_play(&bench, STR(TLS_START), 0);
    jb_forget(&bench);
    jb_play(&bench, STR(JB_TLS_OTHER), 0);
    assert_non_null(strstr(bench.text, "LOG link.trust.refused reason="));
    /* Said inside a proper stream, so that the router's log has it. */
    assert_non_null(strstr(bench.text, "SEND " OUR_HEAD "\nSEND <stream:error><not-authorized"));
    assert_non_null(strstr(bench.text, "CLOSE untrusted the "));
    assert_true(bench.m.judged && !trust_ok(bench.m.verdict));
    assert_null(bench.wrong);
    jb_close(&bench);
}

static void test_bytes_in_clear(void **state)
{
    (void)state;
    open_with(JB_HEADER JB_FEATURES(JB_STARTTLS));
    expect("<proceed xmlns='" NS_TLS "'/>" JB_HEADER,
           "TLS_START\nCLOSE tls-failed abort bytes in clear\n");
    jb_close(&bench);
}

static void test_names(void **state)
{
    (void)state;
    open_with(JB_UP NAME("a.lab") NAME("B\xc3\xbc"
                                       "cher.Lab") NAME("sm"));
    assert_int_equal(bench.m.nnames, 2);
    assert_true(jabberd2_announced(&bench.m, STR("a.lab")));
    assert_true(jabberd2_announced(&bench.m, STR("xn--bcher-kva.lab")));
    assert_false(jabberd2_announced(&bench.m, STR("a.la")));
    assert_false(jabberd2_announced(&bench.m, STR("sm")));
    assert_false(jabberd2_announced(&bench.m, STR("gw1")));
    /* To the name as the router spells it. */
    struct span s = jabberd2_route(&bench.m, STR("<iq/>"), STR("xn--bcher-kva.lab"));
    assert_true(str_is(s.s, ROUTE("from='gw1' to='B\xc3\xbc"
                                  "cher.Lab'",
                                  "<iq " CLIENT "/>")));
    span_release(&s);
    s = jabberd2_route(&bench.m, STR("<iq/>"), STR("b.lab"));
    assert_true(str_is(s.s, ROUTE("from='gw1' to='b.lab'", "<iq " CLIENT "/>")));
    span_release(&s);
    expect(GONE("a.lab"), "LOG link.domain.down domain=a.lab\n");
    assert_false(jabberd2_announced(&bench.m, STR("a.lab")));
    assert_int_equal(bench.m.nnames, 1);
    jb_close(&bench);
}

static void test_many_names(void **state)
{
    char text[200];
    (void)state;
    open_with(JB_UP);
    for (unsigned i = 0; i < JABBERD2_NAMES_MAX; i++) {
        snprintf(text, sizeof text, NAME("d%u.lab"), i);
        jb_play(&bench, str_c(text), 0);
    }
    assert_int_equal(bench.m.nnames, JABBERD2_NAMES_MAX);
    jb_forget(&bench);
    expect(NAME("one.more.lab") NAME("two.more.lab"), "LOG link.domain.limit names=10000\n");
    assert_false(jabberd2_announced(&bench.m, STR("one.more.lab")));
    expect(NAME("d0.lab"), "");
    expect(GONE("d9999.lab") NAME("one.more.lab"),
           "LOG link.domain.down domain=d9999.lab\nLOG link.domain.up domain=one.more.lab\n");
    assert_int_equal(bench.m.nnames, JABBERD2_NAMES_MAX);
    jb_close(&bench);
}

static void test_keepalive(void **state)
{
    (void)state;
    open_with(JB_UP JB_ACTIVE PONG);
    uint64_t up = bench.now;
    assert_int_equal(bench.m.probes.ping.sent, 1);
    assert_int_equal(bench.m.probes.ping.answered, 1);
    expect(JB_TIME, "SEND  \n");
    assert_int_equal(bench.now, up + JB_KEEPALIVE);
    expect(JB_TIME, SEND_PING); /* white space is not due beside it */
    assert_int_equal(bench.now, up + JABBERD2_PING_MS);
    expect(PONG JB_TIME, ""); /* it was in time */
    expect(JB_TIME, "SEND  \n");
    expect(NAME("b.lab"), "LOG link.domain.up domain=b.lab\n");
    expect(JB_SENT JB_TIME, ""); /* a stanza went out, and something came in */
    expect(JB_TIME, "SEND  \n");
    assert_int_equal(bench.m.probes.space.sent, 3);
    assert_int_equal(bench.m.probes.ping.sent, 2);
    assert_int_equal(bench.m.probes.ping.answered, 2);
    jb_close(&bench);
}

static void test_dead(void **state)
{
    (void)state;
    open_with(JB_UP JB_ACTIVE PONG JB_TIME JB_TIME);
    assert_int_equal(bench.m.probes.ping.sent, 2);
    uint64_t asked = bench.now;
    expect(JB_TIME, "LOG link.ping.unanswered after=20000 silent=80000\nCLOSE lost abort\n");
    assert_int_equal(bench.now, asked + JABBERD2_PING_ANSWER_MS);
    jb_close(&bench);

    /* Any element counts as an answer. */
    open_with(JB_UP JB_ACTIVE PONG JB_TIME JB_TIME NAME("b.lab"));
    expect(JB_TIME JB_TIME, "SEND  \n");
    jb_close(&bench);

    /* A router that never brought one back is left alone. */
    open_with(JB_UP JB_ACTIVE);
    for (int i = 0; i < 10; i++)
        jb_play(&bench, STR(JB_TIME), 0);
    assert_int_equal(bench.m.end.state, LINK_UP);
    assert_int_equal(bench.m.probes.ping.answered, 0);
    jb_close(&bench);
}

/* While we do not read, silence means nothing. */
static void test_pause(void **state)
{
    (void)state;
    open_with(JB_UP JB_ACTIVE PONG JB_TIME JB_TIME JB_PAUSE);
    for (int i = 0; i < 5; i++)
        expect(JB_TIME, i == 0 ? "" : "SEND  \n"); /* that of the ping, 20 s on, finds nothing */
    uint64_t resumed = bench.now;
    expect(JB_RESUME JB_TIME, "SEND  \n");
    expect(JB_TIME, SEND_PING);
    assert_int_equal(bench.now, resumed + JABBERD2_PING_MS);
    jb_close(&bench);
}

static void test_no_randomness(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        open_with(i ? JB_AUTHENTIC : START);
        bench.no_random = true;
        expect(i ? JB_BOUND : JB_CHALLENGE, "CLOSE no-memory abort\n");
        jb_close(&bench);
    }
}

/* ---- every event in every state, memory, random walks ---------------------------------------- */

/* Each with what is fed first. */
static const char *const places[] = {"",
                                     JB_HEADER,
                                     START,
                                     START JB_CHALLENGE,
                                     JB_HEADER JB_FEATURES(JB_STARTTLS),
                                     TLS_START,
                                     TLS_START JB_TLS_UP,
                                     START JB_CHALLENGE JB_SUCCESS,
                                     JB_AUTHENTIC,
                                     JB_UP,
                                     UP_ACTIVE,
                                     UP_STANDBY,
                                     UP_STANDBY GONE("s2s"),
                                     UP_ACTIVE JB_TIME JB_TIME,
                                     UP_ACTIVE JB_DRAIN,
                                     JB_HEADER JB_DRAIN,
                                     UP_ACTIVE JB_LOST};

static const char *const inputs[] = {JB_HEADER,
                                     JB_FEATURES(JB_MECHANISMS),
                                     JB_FEATURES(JB_STARTTLS JB_MECHANISMS),
                                     JB_FEATURES(""),
                                     "<proceed xmlns='" NS_TLS "'/>",
                                     "<failure xmlns='" NS_TLS "'/>",
                                     JB_CHALLENGE,
                                     JB_SUCCESS,
                                     "<failure xmlns='" NS_SASL "'><a/></failure>",
                                     JB_BOUND,
                                     JB_ACTIVE,
                                     JB_TAKEN,
                                     "<bind " N " error='403'/>",
                                     NAME("a.lab"),
                                     GONE("a.lab"),
                                     NAME("b.lab"),
                                     NAME("s2s"),
                                     GONE("s2s"),
                                     GONE("gw1"),
                                     PONG,
                                     OUTWARD(FAR),
                                     OUTWARD("from='a@a.lab'"),
                                     OUTWARD(""),
                                     ROUTE("error='404' from='gw1' to='a.lab'", OURS("")),
                                     ROUTE("to='s2s'", "x"),
                                     ROUTE("type='log'", ""),
                                     "<x/>",
                                     "x",
                                     "<",
                                     END,
                                     FAILED("reset"),
                                     " ",
                                     JB_TLS_UP,
                                     JB_TLS_OTHER,
                                     JB_TLS_FAILED,
                                     JB_DRAIN,
                                     JB_CONFLICT,
                                     JB_LOST,
                                     JB_TIME,
                                     JB_PAUSE,
                                     JB_RESUME,
                                     JB_OTHERS,
                                     JB_TIMERS,
                                     JB_SENT,
                                     JB_BARE,
                                     JB_BEGIN};

enum { PLACES = sizeof places / sizeof places[0], INPUTS = sizeof inputs / sizeof inputs[0] };

static void test_every_input(void **state)
{
    (void)state;
    for (unsigned profile = 0; profile < JB_PROFILES; profile++) {
        for (size_t p = 0; p < PLACES; p++) {
            for (size_t i = 0; i < INPUTS; i++) {
                assert_true(jb_open(&bench, profile));
                jb_play(&bench, str_c(places[p]), 0);
                jb_play(&bench, str_c(inputs[i]), 0);
                jb_play(&bench, str_c(inputs[i]), 0);
                if (bench.wrong != NULL)
                    fail_msg("place %zu, input %zu: not so: %s\n%s", p, i, bench.wrong, bench.text);
                jb_close(&bench);
            }
        }
    }
}

static void test_edges(void **state)
{
    (void)state;
    assert_true(jb_open(&bench, JB_PLAIN));
    jb_close(&bench);
    /* Before it has begun. */
    struct gw_actions out;
    struct jabberd2_config cfg = {.name = STR("gw1")};
    struct jabberd2 m;
    jabberd2_init(&m, &cfg, &bench.env);
    gw_actions_init(&out);
    jabberd2_step(&m, &(struct gw_event){.kind = EV_LOST, .u.text = STR("gone")}, &out);
    assert_int_equal(m.end.state, LINK_RESTING);
    assert_int_equal(out.v[out.n - 1].kind, ACT_CLOSE);
    gw_actions_free(&out);
    assert_int_equal(jb_untaken(), 1); /* that one: benches begin with EV_OPENED */
}

static void test_no_memory(void **state)
{
    static const char story[] =
        TLS_START JB_TLS_UP JB_AUTHENTIC NAME("a.lab") JB_BOUND JB_ACTIVE PONG NAME("b.lab")
            OUTWARD(FAR) ROUTE("error='404' from='gw1' to='a.lab'", OURS("")) GONE("b.lab")
                JB_TIME JB_TIME JB_DRAIN OUTWARD(FAR) END;
    unsigned long n = 0;
    (void)state;
    for (bool done = false; !done; n++) {
        mem_fail_after(n + 1);
        bool opened = jb_open(&bench, JB_TRUST | JB_STARVED);
        if (opened)
            jb_play(&bench, STR(story), 0);
        mem_fail_after(0);
        if (bench.wrong != NULL)
            fail_msg("allocation %lu: not so: %s\n%s", n + 1, bench.wrong, bench.text);
        done = opened && strstr(bench.text, "CLOSE drained\n") != NULL;
        assert_true(done || !opened || bench.over);
        jb_close(&bench);
    }
    assert_in_range(n, 100, 2000);
}

/* Only one allocation fails, and the next ones work again: nothing may be half done. */
static void test_bad_moment(void **state)
{
    (void)state;
    for (size_t p = 0; p < PLACES; p++) {
        for (size_t i = 0; i < INPUTS; i++) {
            for (unsigned long n = 1; n <= 6; n++) {
                assert_true(jb_open(&bench, JB_PLAIN));
                jb_play(&bench, str_c(places[p]), 0);
                bench.starved = true;
                mem_fail_after(n);
                jb_play(&bench, str_c(inputs[i]), 0);
                mem_fail_after(0);
                jb_play(&bench, str_c(inputs[i]), 0);
                if (bench.wrong != NULL)
                    fail_msg("place %zu, input %zu: not so: %s", p, i, bench.wrong);
                jb_close(&bench);
            }
        }
    }
}

static void test_walk(void **state)
{
    struct fake f;
    unsigned ups = 0;
    (void)state;
    fake_init(&f, 4711);
    for (unsigned walk = 0; walk < 4000; walk++) {
        bool plain = fake_below(&f, 4) != 0;
        assert_true(jb_open(&bench, plain ? JB_PLAIN : (unsigned)fake_below(&f, JB_PROFILES)));
        jb_play(&bench, str_c(places[fake_below(&f, PLACES)]), 0);
        for (unsigned i = 0; i < 60 && !bench.over; i++) {
            bool likely = fake_below(&f, 4) != 0; /* what does not end it: from PLACES' middle on */
            size_t at = likely ? 9 + fake_below(&f, 17) : fake_below(&f, INPUTS);
            jb_play(&bench, str_c(inputs[at]), fake_below(&f, 3) ? 0 : 1 + fake_below(&f, 40));
        }
        ups += bench.m.end.was_up;
        if (bench.wrong != NULL)
            fail_msg("walk %u: not so: %s\n%s", walk, bench.wrong, bench.text);
        jb_close(&bench);
    }
    assert_in_range(ups, 1000, 4000);
}

static void test_step_names(void **state)
{
    (void)state;
    assert_string_equal(jabberd2_step_name(JABBERD2_FEATURES), "FEATURES");
    assert_string_equal(jabberd2_step_name(JABBERD2_BOUND), "BOUND");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_setup),
        cmocka_unit_test(test_tls),
        cmocka_unit_test(test_up),
        cmocka_unit_test(test_trust),
        cmocka_unit_test(test_bytes_in_clear),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_many_names),
        cmocka_unit_test(test_keepalive),
        cmocka_unit_test(test_dead),
        cmocka_unit_test(test_pause),
        cmocka_unit_test(test_no_randomness),
        cmocka_unit_test(test_every_input),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_bad_moment),
        cmocka_unit_test(test_walk),
        cmocka_unit_test(test_step_names),
        cmocka_unit_test(test_edges), /* last */
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
