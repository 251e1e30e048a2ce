/* The loader's inside: one load in progress, shared by load.c, convert.c and check_api.c. */
#ifndef CONFIG_LOAD_PRIV_H
#define CONFIG_LOAD_PRIV_H

#include "config/source.h"

enum { LOAD_KEY_MAX = 256, LOAD_TABLES_MAX = 1 + SCHEMA_LISTS_MAX };

/* A table's defaults, parsed: member "e<i>" belongs to entry i. */
struct defaults {
    const struct schema *schema;
    config_t config;
};

struct schema_load {
    const struct schema *schema;
    const char *file; /* the main file */
    char *root;
    struct schema_meta *meta;
    struct sources sources;
    struct report report;
    struct defaults defaults[LOAD_TABLES_MAX];
    size_t ndefaults;
    bool no_memory;
};

/* One struct being filled: the root or an element. */
struct scope {
    const struct schema *schema;
    char *base;
    struct schema_origin *origins;
    const char *name; /* "", "peers[beta.lab]." */
};

/* One setting on its way into the struct. `at.source` 0: it is a default. */
struct value_in {
    const struct schema_entry *e;
    const struct scope *scope;
    config_setting_t *setting;
    struct schema_origin at;
};

/* Writes everything but groups into the scope's struct, or reports why not. */
void convert_value(struct schema_load *l, const struct value_in *in);
/* Starts an error line "key = value: ". */
struct buf *convert_error(struct schema_load *l, const struct value_in *in);
/* The same without the value. */
struct buf *convert_key_error(struct schema_load *l, const struct value_in *in);
/* Grows an array of `n` elements, with a capacity of powers of two, for one more; zeroes it. */
void *convert_grow(struct schema_load *l, void *array, size_t n, size_t size);
bool convert_limited(struct schema_load *l, const struct value_in *in, uint64_t value);

#endif
