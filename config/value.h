/* Values of the configuration: text to value, checks, and value to text. */
#ifndef CONFIG_VALUE_H
#define CONFIG_VALUE_H

#include "config/schema.h"
#include "core/base/cidr.h"

enum { VALUE_TEXT_MAX = 4096, SECRET_SIZE_MAX = 4096 };

bool duration_parse(struct str s, uint64_t *ms); /* "500ms", "30s", "5m", "1h", "2d" */
bool size_parse(struct str s, uint64_t *bytes);  /* "4096", "64K", "10M", "1G" */
bool until_parse(struct str s, int64_t *ms);     /* "2026-12-31" (to its end), or a date-time */
void until_put(struct buf *out, int64_t ms);     /* as a day when it is the end of one */
void duration_put(struct buf *out, uint64_t ms); /* in the largest unit that fits */
void size_put(struct buf *out, uint64_t bytes);

/* Writes the canonical form of `text`; `file` is the configuration file that relative paths are
 * seen from. Returns what is wrong, or NULL. Out of memory shows as out->failed. */
const char *value_check(enum schema_check check, const char *file, const char *text,
                        struct buf *out);

/* Reads a secret's file and trims one trailing newline. NULL and `why` on failure; `why` empty: out
 * of memory. Free the result with value_wipe. */
char *value_secret(const char *path, struct buf *why);
void value_wipe(char *secret);

enum value_style {
    VALUE_BARE,   /* for log lines: texts without quotes */
    VALUE_SYNTAX, /* as in the file */
};

/* The entry's value in `base`. An unset one is "(unset)" when bare, `""` otherwise; secrets show
 * their file names, groups their number. */
void value_put(struct buf *out, const struct schema_entry *e, const void *base,
               enum value_style style);
void value_put_text(struct buf *out, const char *text, enum value_style style);
/* Set, or of a kind that always is. */
bool value_is_set(const struct schema_entry *e, const void *base);
/* Secrets: the same files with the same contents. */
bool value_equal(const struct schema_entry *e, const void *a, const void *b);
const char *value_name(const struct schema_entry *e, int value);

/* Access to a field by its offset; the table's macros have checked the type. */
#define VALUE_FIELD(type, base, offset) ((type *)(void *)((char *)(base) + (offset)))
#define VALUE_CONST(type, base, offset)                                                            \
    ((const type *)(const void *)((const char *)(base) + (offset)))

/* The array of a SCHEMA_GROUPS entry, whatever its element type. */
static inline void *value_array(const void *base, size_t offset)
{
    void *p;
    memcpy(&p, (const char *)base + offset, sizeof p);
    return p;
}

#endif
