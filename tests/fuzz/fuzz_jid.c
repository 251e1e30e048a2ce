/* Addresses: preparing is idempotent, both forms of a domain mean the same one, and what is taken
 * holds nothing that could be read as something else. */
#include <stdint.h>
#include <stdlib.h>

#include "core/xml/jid.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void check_domain(struct str s)
{
    struct domain d, again;
    char ascii[DOMAIN_MAX + 1];
    bool ok = domain_prepare(s, &d);
    if (!ok)
        return;
    check(domain_ascii(s, ascii) && strcmp(ascii, d.ascii) == 0);
    check(domain_prepare(str_c(d.ascii), &again));
    check(strcmp(again.ascii, d.ascii) == 0 && strcmp(again.wire, d.wire) == 0);
    check(domain_prepare(str_c(d.wire), &again));
    check(strcmp(again.ascii, d.ascii) == 0 && strcmp(again.wire, d.wire) == 0);
    check(str_utf8(str_c(d.wire)) && strpbrk(d.wire, " @/<>&'\"\t\r\n") == NULL);
    for (const char *p = d.ascii; *p; p++)
        check((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || *p == '-' || *p == '.');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str s = {(const char *)data, size};
    struct jid j = jid_split(s), k;
    struct domain d;
    size_t n = j.domain.n + (j.local.p ? j.local.n + 1 : 0) + (j.resource.p ? j.resource.n + 1 : 0);
    check(n == size);
    enum jid_verdict v = jid_prepare(s, &k, &d);
    check(str_eq(j.domain, k.domain) && str_eq(j.local, k.local) && str_eq(j.resource, k.resource));
    if (v == JID_OK) {
        check(j.local.p == NULL || (j.local.n && memchr(j.local.p, '@', j.local.n) == NULL));
        check(j.resource.p == NULL || j.resource.n);
    }
    check_domain(s);
    check_domain(j.domain);
    return 0;
}
