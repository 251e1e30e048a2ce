/* Lists of domains from files: one domain, "*.suffix" or "*" a line, '#' begins a comment. This is
 * the form in which other gateways give their lists away and take them.
 *
 * Immutable once read; belongs to the snapshot that names the file. */
#ifndef CONFIG_DOMAINS_H
#define CONFIG_DOMAINS_H

#include "config/index.h"

enum { DOMAINS_MAX = 200000 };

struct domain_list {
    char **v; /* canonical, in the order of the file */
    unsigned *line;
    size_t n;
    struct name_index index; /* by the pattern without a leading '*' */
};

/* What is wrong with a line of the file; 0: with the file as a whole. `text` is borrowed. */
typedef void domain_list_bad(void *arg, unsigned line, bool warning, const char *text);

/* Reads `path`. Faults go to `bad`, and what is not at fault is in the list all the same. NULL: out
 * of memory. */
struct domain_list *domain_list_read(const char *path, domain_list_bad *bad, void *arg);
void domain_list_free(struct domain_list *l); /* NULL is fine */

/* The position of a pattern in its canonical form; false: it is not in the list. NULL is an empty
 * list. */
bool domain_list_has(const struct domain_list *l, const char *pattern, size_t *pos);
/* The same by what the index calls it: "beta.lab", ".suffix", "". */
bool domain_list_find(const struct domain_list *l, struct str name, size_t *pos);

#endif
