/* A TLSA record: what a domain says of the certificate or key of one of its servers (RFC 6698 2.1,
 * RFC 7671). Plain data; DNS brings it, TLS compares with it. */
#ifndef CORE_BASE_TLSA_H
#define CORE_BASE_TLSA_H

#include <stddef.h>
#include <stdint.h>

enum {
    TLSA_RECORDS_MAX = 16, /* of one server */
    TLSA_DATA_MAX = 600,   /* bytes: hashes, and keys up to RSA with 4096 bits */
};

enum { TLSA_PKIX_TA, TLSA_PKIX_EE, TLSA_DANE_TA, TLSA_DANE_EE }; /* usage */
enum { TLSA_CERTIFICATE, TLSA_KEY };                             /* selector */
enum { TLSA_FULL, TLSA_SHA256, TLSA_SHA512 };                    /* matching type */

struct tlsa {
    uint8_t usage, selector, matching; /* as they came: other values than these may stand there */
    uint16_t n;
    unsigned char data[TLSA_DATA_MAX];
};

/* Those of one server. None: it has some, but none that could be kept. */
struct tlsa_set {
    size_t n;
    struct tlsa v[]; /* n */
};

#endif
