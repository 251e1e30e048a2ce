/* The first byte chooses the type asked for, the rest is the message; the name asked for is the one
 * in its question, so that the fuzzer gets past that check, or a fixed one. */
#include <arpa/nameser.h>
#include <stdlib.h>

#include "dns/answer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void check_answer(const struct dns_answer *a, enum dns_rr type)
{
    check(a->n <= DNS_RECORDS_MAX && a->rejected <= DNS_RECORDS_MAX);
    check((a->kind == DNS_ANSWER_RECORDS) == (a->n > 0));
    check(a->ttl <= INT32_MAX);
    for (size_t i = 0; i < a->n; i++) {
        if (type == DNS_RR_TLSA)
            check(i < TLSA_RECORDS_MAX && a->u.tlsa[i].n > 0 && a->u.tlsa[i].n <= TLSA_DATA_MAX);
        else if (type == DNS_RR_SRV)
            check(a->u.srv[i].target[0] == '\0' || dns_host_ok(str_c(a->u.srv[i].target)));
        else
            check(a->u.ip[i].len == 4 || a->u.ip[i].len == 16);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum dns_rr types[] = {DNS_RR_A, DNS_RR_AAAA, DNS_RR_SRV, DNS_RR_TLSA};
    static struct dns_answer a;
    char name[NS_MAXDNAME] = "beta.lab";
    if (size < 1)
        return 0;
    enum dns_rr type = types[data[0] % 4];
    struct str message = {(const char *)data + 1, size - 1};
    if (message.n > 12) {
        const unsigned char *m = data + 1;
        if (ns_name_uncompress(m, m + message.n, m + 12, name, sizeof name) < 0)
            str_copy(name, sizeof name, STR("beta.lab"));
    }
    dns_answer_read(message, str_c(name), type, &a);
    check_answer(&a, type);
    return 0;
}
