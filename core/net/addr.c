#include "core/net/addr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

enum { MAPPED_PREFIX = 12 };

bool addr_to_endpoint(const struct sockaddr *sa, struct endpoint *out)
{
    *out = (struct endpoint){0};
    if (sa->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof in);
        memcpy(out->ip.bytes, &in.sin_addr, 4);
        out->ip.len = 4;
        out->port = ntohs(in.sin_port);
        return true;
    }
    if (sa->sa_family != AF_INET6)
        return false;
    struct sockaddr_in6 in6;
    memcpy(&in6, sa, sizeof in6);
    bool mapped = IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr);
    out->ip.len = mapped ? 4 : 16;
    memcpy(out->ip.bytes, (const char *)&in6.sin6_addr + (mapped ? MAPPED_PREFIX : 0), out->ip.len);
    out->port = ntohs(in6.sin6_port);
    return true;
}

bool addr_from_endpoint(const struct endpoint *e, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof *out);
    if (e->ip.len == 4) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(e->port)};
        memcpy(&in.sin_addr, e->ip.bytes, 4);
        memcpy(out, &in, sizeof in);
        return true;
    }
    if (e->ip.len != 16)
        return false;
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(e->port)};
    memcpy(&in6.sin6_addr, e->ip.bytes, 16);
    memcpy(out, &in6, sizeof in6);
    return true;
}

struct endpoint addr_of_peer(const uv_tcp_t *tcp)
{
    struct sockaddr_storage sa;
    struct endpoint e = {0};
    int len = sizeof sa;
    if (uv_tcp_getpeername(tcp, (struct sockaddr *)&sa, &len) == 0)
        addr_to_endpoint((struct sockaddr *)&sa, &e);
    return e;
}
