#include "core/daemon/story.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "core/base/datetime.h"
#include "core/base/mem.h"
#include "core/control/json.h"

enum { LOOK_BACK = 32, REPEAT_MS = 60 * 1000, LINE_MAX_BYTES = 8192 };

void story_init(struct story *s)
{
    memset(s, 0, sizeof *s);
    s->fd = -1;
}

static void free_event(struct story_event *e)
{
    if (e == NULL)
        return;
    mem_free(e->subject);
    mem_free(e->text);
    mem_free(e);
}

void story_free(struct story *s)
{
    for (size_t i = 0; i < STORY_MAX; i++)
        free_event(s->ring[i]);
    if (s->fd >= 0)
        close(s->fd);
    story_init(s);
}

bool story_file(struct story *s, const char *path)
{
    int fd = -1;
    if (path != NULL && *path != '\0') {
        fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0640);
        if (fd < 0)
            return false;
    }
    if (s->fd >= 0)
        close(s->fd);
    s->fd = fd;
    return true;
}

static int64_t wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- telling --------------------------------------------------------------------------------- */

static struct story_event *repeated(struct story *s, const char *kind, const char *subject,
                                    const char *text, int64_t now)
{
    uint64_t first = s->told > LOOK_BACK ? s->told - LOOK_BACK + 1 : 1;
    for (uint64_t id = s->told; id >= first && id > 0; id--) {
        struct story_event *e = s->ring[id % STORY_MAX];
        if (e != NULL && strcmp(e->kind, kind) == 0 && strcmp(e->subject, subject) == 0 &&
            strcmp(e->text, text) == 0 && now - e->last_at < REPEAT_MS)
            return e;
    }
    return NULL;
}

static struct story_event *new_event(const char *kind, const char *subject, const char *text,
                                     int64_t now)
{
    struct story_event *e = mem_zalloc(sizeof *e);
    if (e == NULL)
        return NULL;
    *e = (struct story_event){.at = now,
                              .last_at = now,
                              .count = 1,
                              .kind = kind,
                              .subject = mem_strdup(subject),
                              .text = mem_strdup(text)};
    if (e->subject != NULL && e->text != NULL)
        return e;
    free_event(e);
    return NULL;
}

/* A full disk or a slow one loses lines, not time. */
static void write_line(const struct story *s, const struct story_event *e)
{
    struct buf line = BUF_INIT(LINE_MAX_BYTES);
    story_json(e, &line);
    buf_putc(&line, '\n');
    if (!line.failed && write(s->fd, line.p, line.len) < 0) {
        /* the ring has it */
    }
    buf_free(&line);
}

void story_tell(struct story *s, const char *kind, const char *subject, const char *fmt, ...)
{
    char text[STORY_TEXT_MAX], whom[STORY_SUBJECT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    str_copy(whom, sizeof whom, str_c(subject ? subject : ""));
    int64_t now = wall_ms();
    struct story_event *e = repeated(s, kind, whom, text, now);
    if (e != NULL) {
        e->count++;
        e->last_at = now;
        return;
    }
    e = new_event(kind, whom, text, now);
    if (e == NULL)
        return;
    e->id = ++s->told;
    free_event(s->ring[e->id % STORY_MAX]);
    s->ring[e->id % STORY_MAX] = e;
    if (s->fd >= 0)
        write_line(s, e);
    if (s->listen != NULL)
        s->listen(s->arg, e);
}

/* ---- looking back ---------------------------------------------------------------------------- */

const struct story_event *story_event(const struct story *s, uint64_t id)
{
    const struct story_event *e = s->ring[id % STORY_MAX];
    return e != NULL && e->id == id ? e : NULL;
}

uint64_t story_first(const struct story *s)
{
    if (s->told == 0)
        return 0;
    return s->told > STORY_MAX ? s->told - STORY_MAX + 1 : 1;
}

void story_json(const struct story_event *e, struct buf *out)
{
    struct json j;
    char at[DATETIME_TEXT], last[DATETIME_TEXT];
    json_begin(&j, out);
    json_object(&j, NULL);
    json_object(&j, "event");
    json_int(&j, "id", (int64_t)e->id);
    json_c(&j, "time", datetime_text(e->at, at));
    json_c(&j, "kind", e->kind);
    json_c(&j, "subject", e->subject);
    json_c(&j, "text", e->text);
    if (e->count > 1) {
        json_int(&j, "count", (int64_t)e->count);
        json_c(&j, "last", datetime_text(e->last_at, last));
    }
    json_end(&j);
    json_end(&j);
}
