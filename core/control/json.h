/* A JSON writer (RFC 8259) over a buffer, for replies of the control socket and lines of events.
 *
 *     struct json j;
 *     json_begin(&j, &out);
 *     json_object(&j, NULL);
 *     json_c(&j, "peer", "beta.lab");
 *     json_array(&j, "pairs");
 *     json_int(&j, NULL, 7);
 *     json_end(&j);
 *     json_end(&j);                       // {"peer":"beta.lab","pairs":[7]}
 *
 * Inside an object every call has a key, inside an array none (NULL). Strings may come from
 * anywhere: what is no UTF-8 becomes U+FFFD, control characters are escaped, so that a value never
 * ends a line. Errors stick, as in struct buf: what does not fit, or is nested too deeply, sets
 * out->failed and nothing more is written. The writer owns nothing and borrows the buffer. */
#ifndef CORE_CONTROL_JSON_H
#define CORE_CONTROL_JSON_H

#include <stdint.h>

#include "core/base/log.h"

enum { JSON_DEPTH_MAX = 16 };

struct json {
    struct buf *out;
    unsigned depth;
    bool more[JSON_DEPTH_MAX + 1]; /* something stands before the next value of this level */
    char closing[JSON_DEPTH_MAX + 1];
};

void json_begin(struct json *j, struct buf *out);
void json_object(struct json *j, const char *key);
void json_array(struct json *j, const char *key);
void json_end(struct json *j); /* of the innermost object or array */

void json_str(struct json *j, const char *key, struct str s); /* absent (p NULL): null */
void json_c(struct json *j, const char *key, const char *s);  /* NULL: null */
void json_int(struct json *j, const char *key, int64_t v);
void json_bool(struct json *j, const char *key, bool v);
/* Milliseconds as seconds with three decimals. */
void json_seconds(struct json *j, const char *key, int64_t ms);
/* Log fields, in the same names: numbers, seconds and strings; absent ones are left out. */
void json_fields(struct json *j, const struct kv *kv, size_t n);

#endif
