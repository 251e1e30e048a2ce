/* A stranger: dials the gateways and says what a peer must never get through with. It has no TLS
 * and no key; it knows the names of everybody. Whatever of it arrives anywhere is a failure,
 * because the ledger does not know it. */
#include <stdio.h>

#include "tests/twin/twin.h"

static const char header[] =
    "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback'"
    " xmlns:stream='http://etherx.jabber.org/streams' version='1.0' from='%s' to='%s'>";

static void say(struct twin *t, const char *text)
{
    net_raw_write(&t->net, t->evil, text, strlen(text));
}

static void greet(struct twin *t, int victim)
{
    const struct ip from = {{192, 0, 2, 66}, 4};
    struct endpoint to;
    char text[512];
    const char *claimed =
        ledger_domains[victim == 0 ? 2 + net_below(&t->net, 2) : net_below(&t->net, 2)];
    endpoint_parse(str_c(victim == 0 ? "192.0.2.1:5269" : "192.0.2.2:5269"), &to);
    t->evil = net_raw_dial(&t->net, &to, &from);
    t->evil_step = (unsigned)victim;
    if (t->evil == NULL)
        return;
    snprintf(text, sizeof text, header, net_chance(&t->net, 300) ? "mallory.lab" : claimed,
             ledger_domains[2 * victim + (int)net_below(&t->net, 2)]);
    say(t, text);
}

static void speak(struct twin *t)
{
    int victim = (int)t->evil_step;
    char text[1024];
    const char *theirs = ledger_domains[2 * victim + (int)net_below(&t->net, 2)];
    const char *claimed = ledger_domains[2 * (1 - victim) + (int)net_below(&t->net, 2)];
    switch (net_below(&t->net, 9)) {
    case 0:
        snprintf(text, sizeof text,
                 "<message id='evil' from='u@%s' to='v@%s'><body>evil</body></message>", claimed,
                 theirs);
        break;
    case 1:
    case 2:
        snprintf(text, sizeof text, "<db:result from='%s' to='%s'>%016llx</db:result>", claimed,
                 theirs, (unsigned long long)net_random(&t->net));
        break;
    case 3:
        snprintf(text, sizeof text, "<db:result type='valid' from='%s' to='%s'/>", claimed, theirs);
        break;
    case 4:
        snprintf(text, sizeof text, "<db:verify type='valid' id='%016llx' from='%s' to='%s'/>",
                 (unsigned long long)net_random(&t->net), claimed, theirs);
        break;
    case 5:
        snprintf(text, sizeof text, "<db:verify id='1' from='%s' to='%s'>00</db:verify>", claimed,
                 theirs);
        break;
    case 6:
        snprintf(text, sizeof text, "<db:result from='mallory.lab' to='%s'>0</db:result>", theirs);
        break;
    case 7:
        snprintf(text, sizeof text,
                 "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><message id='evil'"
                 " from='u@%s' to='v@%s'/>",
                 claimed, theirs);
        break;
    default:
        snprintf(text, sizeof text, "</stream:stream>");
        break;
    }
    say(t, text);
}

void evil_leave(struct twin *t)
{
    if (t->evil != NULL)
        net_raw_close(&t->net, t->evil);
    t->evil = NULL;
}

void evil_round(struct twin *t)
{
    if (t->evil == NULL) {
        if (net_chance(&t->net, t->weather.evil))
            greet(t, (int)net_below(&t->net, 2));
        return;
    }
    while (net_raw_read(&t->net, t->evil, t->evil_seen, sizeof t->evil_seen) > 0)
        ;
    if (net_chance(&t->net, 100))
        speak(t);
    if (net_chance(&t->net, 10) || t->evil->pipe[0].err != 0)
        evil_leave(t);
}
