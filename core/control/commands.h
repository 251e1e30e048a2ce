/* The commands of each program. X(id, name, arguments, privilege, help); command.h says how
 * arguments are written. */
#ifndef CORE_CONTROL_COMMANDS_H
#define CORE_CONTROL_COMMANDS_H

#include "core/control/command.h"

#define GATEWAY_COMMANDS(X)                                                                        \
    X(STATUS, "status", "", READ, "what runs, since when, and how much there is of everything")    \
    X(STREAMS, "streams", "[PEER]", READ, "server-to-server streams, one by one")                  \
    X(PEERS, "peers", "[PEER]", READ, "remote domains: state, streams, queue, rule")               \
    X(PAIRS, "pairs", "[PEER]", READ, "domain pairs on the streams: who proved what, and how")     \
    X(QUEUES, "queues", "", READ, "stanzas that wait, per pair and for the inside")                \
    X(LINKS, "links", "", READ, "the ways to the inside")                                          \
    X(ROUTES, "routes", "", READ, "static routes to remote domains")                               \
    X(POLICY, "policy", "", READ, "what the rules have refused, one by one, and a list on trial")  \
    X(POLICY_EXPORT, "policy export", "allow|deny", READ, "a list, one domain a line")             \
    X(POLICY_PROPOSE, "policy propose", "", READ, "entries for what a list on trial would refuse") \
    X(ALARMS, "alarms", "", READ, "what is wrong now")                                             \
    X(COUNTERS, "counters", "[--balance]", READ, "counters; --balance: what became of stanzas")    \
    X(FIREWALL, "firewall", "", READ, "every flow that the configuration needs")                   \
    X(DNS, "dns", "", READ, "the resolver, and what it found for the present remote domains")      \
    X(DNS_FLUSH, "dns flush", "", OPERATE, "forget what was looked up")                            \
    X(CERTS, "certs", "", READ, "our certificates that are in use")                                \
    X(CONFIG_SHOW, "config show", "[PREFIX]", READ, "every effective setting and its origin")      \
    X(CONFIG_CHECK, "config check", "FILE", ADMIN, "check a file, and what it would change")       \
    X(CONFIG_RELOAD, "config reload", "", ADMIN, "read the configuration again")                   \
    X(EXPLAIN, "explain", "LOCAL REMOTE", READ, "which rule decides about two domains")            \
    X(CLOSE, "close", "ID|PEER", OPERATE, "close a stream, or all of a peer, in good order")       \
    X(RETRY, "retry", "PEER", OPERATE, "end a peer's back-off and try again now")                  \
    X(BLOCK, "block", "PEER [for DURATION]", OPERATE, "refuse a domain (or *.suffix) from now on") \
    X(UNBLOCK, "unblock", "PEER", OPERATE, "the lists decide again")                               \
    X(DRAIN, "drain", "", ADMIN, "end in good order")                                              \
    X(STOP, "stop", "", ADMIN, "end now")                                                          \
    X(LOG_LEVEL, "log level", "[MODULE] LEVEL", OPERATE, "until the next reload")                  \
    X(AUTH_INFO, "auth-info", "", READ, "what the other sides of the links have to know of us")    \
    X(PING, "ping", "JID [from DOMAIN]", OPERATE, "XEP-0199 to a remote address, and the time")    \
    X(EVENTS, "events", "[--follow]", READ, "what happened, in an operator's words")

#define ROUTER_COMMANDS(X)                                                                         \
    X(STATUS, "status", "", READ, "what runs, since when, and how much there is of everything")    \
    X(LINKS, "links", "", READ, "gateways and servers")                                            \
    X(SPLICES, "splices", "", READ, "gateways and servers that are joined byte by byte")           \
    X(ROUTES, "routes", "", READ, "which link a domain's stanzas go to")                           \
    X(ALARMS, "alarms", "", READ, "what is wrong now")                                             \
    X(COUNTERS, "counters", "", READ, "stanzas and bytes of all links")                            \
    X(CONFIG_SHOW, "config show", "[PREFIX]", READ, "every effective setting and its origin")      \
    X(CONFIG_CHECK, "config check", "FILE", ADMIN, "check a file, and what it would change")       \
    X(CONFIG_RELOAD, "config reload", "", ADMIN, "read the configuration again")                   \
    X(CLOSE, "close", "LINK", OPERATE, "close a link's connection; it is made again")              \
    X(DRAIN, "drain", "", ADMIN, "end in good order")                                              \
    X(STOP, "stop", "", ADMIN, "end now")                                                          \
    X(LOG_LEVEL, "log level", "[MODULE] LEVEL", OPERATE, "until the next reload")                  \
    X(AUTH_INFO, "auth-info", "", READ, "what the other sides of the links have to know of us")    \
    X(EVENTS, "events", "[--follow]", READ, "what happened, in an operator's words")

enum gateway_command {
#define X(id, name, args, privilege, help) GATEWAY_##id,
    GATEWAY_COMMANDS(X)
#undef X
};

enum router_command {
#define X(id, name, args, privilege, help) ROUTER_##id,
    ROUTER_COMMANDS(X)
#undef X
};

extern const struct command_set gateway_commands, router_commands;

#endif
