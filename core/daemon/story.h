/* The story of a program in an operator's words: what happened, whom it concerns, in one sentence.
 *
 * A ring of the last STORY_MAX events in memory and, if wanted, a file of JSON lines. Unlike the
 * log it has no levels and no fields to learn, and says nothing that an operator would not tell a
 * colleague. An event that repeats one of the last few within a minute is counted there instead of
 * being told again, so that a noisy stranger does not push out everything else.
 *
 * Pure but for the file and the time of day. One thread. Embedded in its owner. */
#ifndef CORE_DAEMON_STORY_H
#define CORE_DAEMON_STORY_H

#include <stdint.h>

#include "core/base/buf.h"

enum { STORY_MAX = 1000, STORY_SUBJECT_MAX = 256, STORY_TEXT_MAX = 400 };

struct story_event {
    uint64_t id;         /* counts from 1 */
    int64_t at, last_at; /* ms since 1970; last_at: of its last repetition */
    uint64_t count;
    const char *kind; /* static: "stream.up" */
    char *subject;    /* a domain, a link; "" when it concerns the program as a whole */
    char *text;
};

struct story {
    struct story_event *ring[STORY_MAX];
    uint64_t told; /* id of the last one */
    int fd;        /* of the file; -1: none */
    /* Called for each new one (not for repetitions); NULL: nobody listens. */
    void (*listen)(void *arg, const struct story_event *e);
    void *arg;
};

void story_init(struct story *s);
void story_free(struct story *s);
/* NULL or "": no file from now on. False: it cannot be opened (errno); the old one stays. */
bool story_file(struct story *s, const char *path);

/* Out of memory loses the event and nothing else. */
void story_tell(struct story *s, const char *kind, const char *subject, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* The event of an id; NULL: it is not in the ring (any more). */
const struct story_event *story_event(const struct story *s, uint64_t id);
/* The oldest id that is still there; 0: none. */
uint64_t story_first(const struct story *s);
/* {"event":{...}}, without a line end. */
void story_json(const struct story_event *e, struct buf *out);

#endif
