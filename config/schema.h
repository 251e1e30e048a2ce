/* One table per configuration.
 *
 * A `struct schema` lists every key with its type, place in the snapshot, default, bounds and help.
 * The same table drives loading, defaults, checks, `schema_show`, the commented example file and
 * the diff. Tables are static data (config/schema_gateway.c, config/schema_router.c); the macros
 * below fill an entry and refuse, at compile time, a field of another C type.
 *
 * Defaults and examples are written in libconfig syntax and go through the same loader as a file.
 *
 * Glossary: *element*: one group in a list of groups ("peers", "links"); its entries are a table of
 * their own (`sub`), and the entry with SCHEMA_KEY names it. *origin*: file and line of a value. */
#ifndef CONFIG_SCHEMA_H
#define CONFIG_SCHEMA_H

#include <stdint.h>

#include "config/index.h"
#include "core/base/buf.h"

enum schema_type {
    SCHEMA_BOOL,     /* bool */
    SCHEMA_TRISTATE, /* int: 0, 1, or -1 when absent; written as a SCHEMA_BOOL */
    SCHEMA_ENUM,     /* int, from `names` */
    SCHEMA_SET,      /* unsigned, bits from `names`; a list of at least one; 0 when absent */
    SCHEMA_INT,      /* uint64_t */
    SCHEMA_DURATION, /* uint64_t, milliseconds; written "30s", "5m", "1h", "500ms" */
    SCHEMA_SIZE,     /* uint64_t, bytes; written "64K", "10M", "4096" */
    SCHEMA_UNTIL,    /* int64_t, ms since 1970, exclusive; "2026-12-31" (that whole day, UTC) or a
                        date-time; 0 when absent */
    SCHEMA_STRING,   /* char *; NULL when unset or "" */
    SCHEMA_STRINGS,  /* char ** and a count */
    SCHEMA_CIDRS,    /* struct cidr * and a count */
    SCHEMA_SECRET,   /* char * (file name) and a second char * (its contents) */
    SCHEMA_SECRETS,  /* char ** and a second char ** with one common count */
    SCHEMA_DOMAINS,  /* char * (file name) and a struct domain_list * (its contents) */
    SCHEMA_GROUPS,   /* array of structs and a count; the table is `sub` */
};

/* What a string, or each string of a list, has to be. Canonical forms are stored. */
enum schema_check {
    CHECK_ANY,
    CHECK_DOMAIN,   /* A-label form is stored */
    CHECK_PATTERN,  /* domain, "*.suffix", "*" */
    CHECK_NAME,     /* letters, digits, '.', '_', '-' */
    CHECK_IP,       /* literal address */
    CHECK_ENDPOINT, /* literal address and port */
    CHECK_ROUTE,    /* endpoint, or host and port */
    CHECK_KEY_HASH, /* SHA-256 or SHA-1 in hex, colons allowed */
    CHECK_PIN,      /* SHA-256 in hex; "0F:A2:…" is stored */
    CHECK_PATH,     /* need not exist yet; relative to the main file's folder */
    CHECK_FILE,     /* readable regular file; relative to the main file's folder */
};

enum schema_flag {
    SCHEMA_REQUIRED = 1,
    SCHEMA_RESTART = 2, /* a change takes effect only after a restart */
    SCHEMA_KEY = 4,     /* names the element; unique in its list; required */
    SCHEMA_LIMITED = 8, /* values above `available` exist but not in this version */
    SCHEMA_OR_ONE = 16, /* SCHEMA_STRINGS: one text without brackets will do */
};

enum { SCHEMA_LISTS_MAX = 4, SCHEMA_PATH_MAX = 48 };
#define SCHEMA_NOWHERE ((size_t)-1) /* `at` of a key that is checked but not stored */

struct schema_name {
    const char *name; /* NULL ends the list */
    int value;
};

struct schema_entry {
    const char *path; /* "limits.stanza_size"; inside an element without the list's name */
    enum schema_type type;
    enum schema_check check;
    unsigned flags;    /* enum schema_flag */
    size_t at;         /* offset in the struct */
    size_t count_at;   /* lists: offset of the size_t */
    size_t secret_at;  /* secrets: offset of the contents */
    uint64_t min, max; /* of the value; lists: of the number of elements */
    uint64_t available;
    int unset;            /* SCHEMA_ENUM without default: the value when the key is absent */
    unsigned slot;        /* SCHEMA_GROUPS: which of the SCHEMA_LISTS_MAX indexes */
    const char *standard; /* default; NULL: none */
    const char *example;  /* for the example file when the default does not show the form */
    const struct schema_name *names;
    const struct schema *sub;
    const char *help;
};

struct schema_load;

struct schema {
    const char *title; /* first lines of the example file */
    const struct schema_entry *entries;
    size_t n;
    size_t size;    /* of the struct */
    size_t meta_at; /* root tables: offset of the struct schema_meta * */
    /* Root tables: rules between keys; reports with schema_error and schema_warn. It must bear a
     * snapshot with holes, since it also runs after other errors. */
    void (*check)(struct schema_load *l, const void *config);
};

extern const struct schema gateway_schema, router_schema;

/* ---- filling a table ------------------------------------------------------------------------- */

#define SCHEMA_AT(S, ctype, field)                                                                 \
    (offsetof(S, field) +                                                                          \
     0 * sizeof(char[__builtin_types_compatible_p(__typeof__(((S *)0)->field), ctype) ? 1 : -1]))
#define SCHEMA_LIST(S, ctype, field, nfield)                                                       \
    .at = SCHEMA_AT(S, ctype *, field), .count_at = SCHEMA_AT(S, size_t, nfield)
#define SCHEMA_NUMBER(S, kind, field, lo, hi)                                                      \
    .path = #field, .type = (kind), .at = SCHEMA_AT(S, uint64_t, field), .min = (lo), .max = (hi)
#define SCHEMA_SWITCH(S, field) .path = #field, .type = SCHEMA_BOOL, .at = SCHEMA_AT(S, bool, field)
#define SCHEMA_MAYBE(S, field)                                                                     \
    .path = #field, .type = SCHEMA_TRISTATE, .at = SCHEMA_AT(S, int, field)
#define SCHEMA_BITS(S, field, list)                                                                \
    .path = #field, .type = SCHEMA_SET, .at = SCHEMA_AT(S, unsigned, field), .names = (list)
#define SCHEMA_CHOICE(S, field, list)                                                              \
    .path = #field, .type = SCHEMA_ENUM, .at = SCHEMA_AT(S, int, field), .names = (list)
#define SCHEMA_TEXT(S, field, kind)                                                                \
    .path = #field, .type = SCHEMA_STRING, .at = SCHEMA_AT(S, char *, field), .check = (kind)
#define SCHEMA_TEXTS(S, field, nfield, kind, most)                                                 \
    .path = #field, .type = SCHEMA_STRINGS, SCHEMA_LIST(S, char *, field, nfield),                 \
    .check = (kind), .max = (most)

/* ---- a loaded snapshot ----------------------------------------------------------------------- */

struct schema_origin {
    uint32_t source; /* 1 + index in meta->files; 0: default */
    uint32_t line;
};

/* Belongs to its snapshot and is as immutable. */
struct schema_meta {
    char **files;
    size_t nfiles;
    struct schema_origin *origins; /* one per entry of the root table */
    struct {
        struct schema_origin *origins; /* one per element and entry of the sub-table */
        struct name_index index;       /* by the element's name without a leading '*' */
    } lists[SCHEMA_LISTS_MAX];
};

/* Loads, checks and returns a new struct of schema->size bytes; NULL on failure (see
 * gateway_config_load for `errors`). `text.p` NULL: read `file`; else it is the file's contents.
 * Free with schema_free. */
void *schema_load(const struct schema *s, const char *file, struct str text, struct buf *errors);
void schema_free(const struct schema *s, void *config);

/* True when `errors` says that the main file does not exist. */
bool config_missing(const struct buf *errors);

/* For schema->check: reports about key `path` (of element `i` of `list`; list NULL: a root key) at
 * the place where it was set, as "file:line: key = value: message". */
void schema_error(struct schema_load *l, const char *list, size_t i, const char *path,
                  const char *fmt, ...) __attribute__((format(printf, 5, 6)));
void schema_warn(struct schema_load *l, const char *list, size_t i, const char *path,
                 const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* The same about the element as a whole. */
void schema_element_error(struct schema_load *l, const char *list, size_t i, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
bool schema_is_set(const struct schema_load *l, const char *list, size_t i, const char *path);
/* For schema->check: no memory to finish; the load fails. */
void schema_no_memory(struct schema_load *l);

const struct schema_entry *schema_entry(const struct schema *s, const char *path);
/* The entry that names an element; NULL: a root table. */
const struct schema_entry *schema_key(const struct schema *s);
/* Position of the element called `name` in a root list; false: there is none. */
bool schema_find(const struct schema *s, const void *config, const struct schema_entry *list,
                 struct str name, size_t *pos);
/* The element's name (its SCHEMA_KEY); "" when it has none. */
const char *schema_element_name(const struct schema_entry *list, const void *element);

/* ---- printing -------------------------------------------------------------------------------- */

/* The commented example file. */
void schema_example(const struct schema *s, struct buf *out);
/* Every effective value with its origin, one line each: `key = value;  # file:line` or `# default`.
 * Secrets are shown as their file names only. */
void schema_show(const struct schema *s, const void *config, struct buf *out);
/* No file sets this root key. */
bool schema_is_default(const struct schema *s, const void *config, const char *path);
/* Where element `i` of a root list was begun, "file:line"; "" when it is not known. */
void schema_where(const struct schema *s, const void *config, const char *list, size_t i,
                  struct buf *out);

#endif
