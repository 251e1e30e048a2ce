/* The XML stream of RFC 6120 section 4: writing headers, features and errors, reading features and
 * versions. Pure text in, text out. */
#ifndef CORE_STREAM_STREAM_H
#define CORE_STREAM_STREAM_H

#include "core/base/buf.h"
#include "core/xml/framer.h"

enum { STREAM_ID_BYTES = 20, STREAM_ID_HEX = 2 * STREAM_ID_BYTES };

/* A server-to-server header (4.7, 4.8): declares jabber:server, the stream prefix and xmlns:db,
 * carries xml:lang='en'. Absent addresses and id are left out. */
struct stream_open {
    struct str from, to, id;
    bool version; /* write version='1.0' */
};
void stream_write_header(struct buf *b, const struct stream_open *open);

/* A stream error (4.9) and the closing tag. `text` may be NULL; both are static or escaped here. */
void stream_write_error(struct buf *b, const char *condition, const char *text);
#define STREAM_CLOSE_TAG "</stream:stream>"

/* 4.7.5: versions compare as numbers. Absent, unreadable or below 1.0: false. */
bool stream_version_1(struct str version);

struct stream_features {
    bool starttls, starttls_required;
    bool dialback, dialback_errors; /* XEP-0220 2.4: <dialback/>, <errors/> */
    bool external;                  /* SASL EXTERNAL is offered */
    uint64_t max_bytes, idle_ms;    /* XEP-0478; 0: not said */
    bool bidi;                      /* XEP-0288 */
};

/* False when the nonza is not <stream:features/>. */
bool stream_read_features(const struct nonza *z, struct stream_features *out);

/* A received <stream:error/>: its condition (absent: "undefined-condition") and text. */
bool stream_read_error(const struct nonza *z, struct str *condition, struct str *text);

#endif
