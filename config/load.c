/* Files to snapshot.
 *
 * Every file is parsed into its own tree. The trees are walked in order, each member is looked up
 * in the table and converted; what no file set takes its default, which comes through the same
 * conversion. All faults are collected and printed together; with any error nothing is returned. */
#include "config/load_priv.h"

#include <errno.h>
#include <stdio.h>

#include "config/value.h"
#include "core/base/mem.h"

static const char missing_prefix[] = "configuration file missing: ";

static void walk(struct schema_load *l, const struct scope *sc, config_setting_t *group,
                 const char *prefix, uint32_t source);

/* ---- looking up ------------------------------------------------------------------------------ */

static bool is_group(const struct schema *s, const char *path)
{
    size_t n = strlen(path);
    for (size_t i = 0; i < s->n; i++)
        if (strncmp(s->entries[i].path, path, n) == 0 && s->entries[i].path[n] == '.')
            return true;
    return false;
}

static void report_unknown(struct schema_load *l, const struct scope *sc, const char *prefix,
                           const char *name, struct schema_origin at)
{
    char best[SCHEMA_PATH_MAX] = "", segment[SCHEMA_PATH_MAX];
    size_t n = strlen(prefix);
    for (size_t i = 0; i < sc->schema->n; i++) {
        const char *path = sc->schema->entries[i].path;
        if (strncmp(path, prefix, n) != 0)
            continue;
        str_copy(segment, sizeof segment, (struct str){path + n, strcspn(path + n, ".")});
        if (*best == '\0' || str_distance(name, segment) < str_distance(name, best))
            memcpy(best, segment, sizeof best);
    }
    struct buf *b = report_open(&l->report, at, false);
    buf_printf(b, "%s%s", sc->name, prefix);
    report_quote(b, str_c(name));
    buf_puts(b, ": unknown key");
    report_suggest(b, name, *best ? best : NULL);
}

/* ---- defaults -------------------------------------------------------------------------------- */

static config_t *table_defaults(struct schema_load *l, const struct schema *s)
{
    for (size_t i = 0; i < l->ndefaults; i++)
        if (l->defaults[i].schema == s)
            return &l->defaults[i].config;
    struct buf text = BUF_INIT(16384);
    for (size_t i = 0; i < s->n; i++)
        if (s->entries[i].standard != NULL)
            buf_printf(&text, "e%zu = %s;\n", i, s->entries[i].standard);
    config_t *c = &l->defaults[l->ndefaults].config;
    l->defaults[l->ndefaults++].schema = s;
    config_init(c);
    if (text.failed || !config_read_string(c, text.p ? text.p : ""))
        l->no_memory = true;
    buf_free(&text);
    return c;
}

static void take_default(struct schema_load *l, const struct scope *sc, size_t i)
{
    const struct schema_entry *e = &sc->schema->entries[i];
    char name[32];
    if (e->standard == NULL)
        return;
    config_t *c = table_defaults(l, sc->schema);
    snprintf(name, sizeof name, "e%zu", i);
    config_setting_t *s = config_setting_get_member(config_root_setting(c), name);
    if (s != NULL)
        convert_value(l, &(struct value_in){e, sc, s, {0, 0}});
}

/* Gives what no file has set its default, or reports that it is missing. */
static void finish(struct schema_load *l, const struct scope *sc, struct schema_origin at)
{
    for (size_t i = 0; i < sc->schema->n && !l->no_memory; i++) {
        const struct schema_entry *e = &sc->schema->entries[i];
        if (sc->origins[i].source != 0)
            continue;
        if (!(e->flags & SCHEMA_REQUIRED))
            take_default(l, sc, i);
        else if (at.source != 1 || at.line != 0 || !l->sources.broken)
            buf_puts(convert_key_error(l, &(struct value_in){e, sc, NULL, at}),
                     ": required but missing");
    }
}

static void set_unset(const struct scope *sc)
{
    for (size_t i = 0; i < sc->schema->n; i++) {
        const struct schema_entry *e = &sc->schema->entries[i];
        if (e->type == SCHEMA_TRISTATE)
            *VALUE_FIELD(int, sc->base, e->at) = -1;
        else if (e->type == SCHEMA_ENUM && e->at != SCHEMA_NOWHERE && e->standard == NULL)
            *VALUE_FIELD(int, sc->base, e->at) = e->unset;
    }
}

/* ---- groups ---------------------------------------------------------------------------------- */

/* How messages call an element: by its name if it has one, else by its place. */
static void element_label(const struct value_in *in, size_t pos, char out[LOAD_KEY_MAX])
{
    const struct schema_entry *key = schema_key(in->e->sub);
    config_setting_t *s = key ? config_setting_get_member(in->setting, key->path) : NULL;
    const char *name = s ? config_setting_get_string(s) : NULL;
    struct buf b = BUF_INIT(LOAD_KEY_MAX - 40);
    if (name != NULL && *name != '\0')
        report_quote(&b, str_c(name));
    else
        buf_printf(&b, "#%zu", pos + 1);
    snprintf(out, LOAD_KEY_MAX, "%.40s[%.200s].", in->e->path, b.p && !b.failed ? b.p : "");
    buf_free(&b);
}

static void index_element(struct schema_load *l, const struct value_in *in, const char *element,
                          size_t pos)
{
    const struct schema *sub = in->e->sub;
    const char *name = schema_element_name(in->e, element);
    size_t old, key = (size_t)(schema_key(sub) - sub->entries);
    if (*name == '\0')
        return; /* its fault has been reported */
    switch (name_index_add(&l->meta->lists[in->e->slot].index, name + (*name == '*'), pos, &old)) {
    case NAME_ADDED:
        break;
    case NAME_NO_MEMORY:
        l->no_memory = true;
        break;
    case NAME_EXISTS: {
        struct schema_origin at = l->meta->lists[in->e->slot].origins[old * sub->n + key];
        struct buf *b = report_open(&l->report, in->at, false);
        buf_printf(b, "%s[%s]: already listed at %s:%u", in->e->path, name,
                   l->meta->files[at.source - 1], at.line);
        break;
    }
    }
}

static void take_element(struct schema_load *l, const struct value_in *in, size_t *n)
{
    const struct schema *sub = in->e->sub;
    struct schema_origin **origins = &l->meta->lists[in->e->slot].origins;
    char label[LOAD_KEY_MAX];
    element_label(in, *n, label);
    if (config_setting_type(in->setting) != CONFIG_TYPE_GROUP) {
        buf_puts(convert_error(l, in), "must be a group { ... }");
        return;
    }
    char *grown = convert_grow(l, value_array(in->scope->base, in->e->at), *n, sub->size);
    if (grown == NULL)
        return;
    memcpy(in->scope->base + in->e->at, &grown, sizeof grown);
    struct schema_origin *o = convert_grow(l, *origins, *n, sub->n * sizeof *o);
    if (o == NULL)
        return;
    *origins = o;
    struct scope sc = {sub, grown + *n * sub->size, o + *n * sub->n, label};
    size_t pos = (*n)++;
    set_unset(&sc);
    walk(l, &sc, in->setting, "", in->at.source);
    finish(l, &sc, in->at);
    index_element(l, in, sc.base, pos);
}

static void take_groups(struct schema_load *l, const struct value_in *in)
{
    const struct schema_entry *e = in->e;
    int type = config_setting_type(in->setting);
    unsigned given = (unsigned)config_setting_length(in->setting);
    size_t *n = VALUE_FIELD(size_t, in->scope->base, e->count_at);
    if (type != CONFIG_TYPE_LIST && (type != CONFIG_TYPE_ARRAY || given)) {
        buf_puts(convert_error(l, in), "must be a list of groups, e.g. ( { ... }, { ... } )");
        return;
    }
    if (given > e->max || *n > e->max - given) {
        buf_printf(convert_error(l, in), "at most %llu are allowed", (unsigned long long)e->max);
        return;
    }
    for (unsigned i = 0; i < given && !l->no_memory; i++) {
        struct value_in one = *in;
        one.setting = config_setting_get_elem(in->setting, i);
        one.at.line = one.setting->line;
        if (e->flags & SCHEMA_LIMITED && *n >= e->available)
            buf_printf(convert_key_error(l, &one),
                       ": more than %llu is not available in this version",
                       (unsigned long long)e->available);
        else
            take_element(l, &one, n);
    }
}

/* ---- walking --------------------------------------------------------------------------------- */

static bool is_list(const struct schema_entry *e)
{
    return e->type == SCHEMA_GROUPS || e->type == SCHEMA_STRINGS || e->type == SCHEMA_CIDRS ||
           e->type == SCHEMA_SECRETS;
}

static void take_entry(struct schema_load *l, const struct value_in *in)
{
    struct schema_origin *o = &in->scope->origins[in->e - in->scope->schema->entries];
    if (in->at.source > 1 && strcmp(in->e->path, "include_dir") == 0) {
        buf_puts(convert_error(l, in), "only the main file may set it");
        return;
    }
    if (o->source != 0 && !is_list(in->e)) {
        buf_printf(convert_error(l, in), "already set at %s:%u", l->meta->files[o->source - 1],
                   o->line);
        return;
    }
    if (o->source == 0)
        *o = in->at;
    size_t errors = l->report.errors;
    if (in->e->type == SCHEMA_GROUPS)
        take_groups(l, in);
    else
        convert_value(l, in);
    /* One fault, one line: the rules between keys see the default instead. */
    if (l->report.errors > errors && !is_list(in->e))
        take_default(l, in->scope, (size_t)(in->e - in->scope->schema->entries));
}

static void walk(struct schema_load *l, const struct scope *sc, config_setting_t *group,
                 const char *prefix, uint32_t source)
{
    int n = config_setting_length(group);
    for (int i = 0; i < n && !l->no_memory; i++) {
        config_setting_t *s = config_setting_get_elem(group, (unsigned)i);
        struct schema_origin at = {source, s->line};
        char path[SCHEMA_PATH_MAX];
        bool fits = snprintf(path, sizeof path, "%s%s", prefix, s->name) < SCHEMA_PATH_MAX - 1;
        const struct schema_entry *e = fits ? schema_entry(sc->schema, path) : NULL;
        if (e != NULL) {
            take_entry(l, &(struct value_in){e, sc, s, at});
        } else if (!fits || !is_group(sc->schema, path)) {
            report_unknown(l, sc, prefix, s->name, at);
        } else if (config_setting_type(s) != CONFIG_TYPE_GROUP) {
            const struct schema_entry as = {.path = path};
            buf_puts(convert_error(l, &(struct value_in){&as, sc, s, at}),
                     "must be a group { ... }");
        } else {
            size_t len = strlen(path);
            path[len] = '.', path[len + 1] = '\0';
            walk(l, sc, s, path, source);
        }
    }
}

/* ---- one load -------------------------------------------------------------------------------- */

static struct schema_load *load_new(const struct schema *s, const char *file)
{
    struct schema_load *l = mem_zalloc(sizeof *l);
    if (l == NULL)
        return NULL;
    l->schema = s;
    l->file = file;
    l->root = mem_zalloc(s->size);
    l->meta = mem_zalloc(sizeof *l->meta);
    if (l->root != NULL)
        *VALUE_FIELD(struct schema_meta *, l->root, s->meta_at) = l->meta;
    if (l->meta != NULL)
        l->meta->origins = mem_zalloc(s->n * sizeof *l->meta->origins);
    l->no_memory = l->root == NULL || l->meta == NULL || l->meta->origins == NULL;
    return l;
}

/* Gives back everything but the snapshot, and that too unless it is to be kept. */
static void *load_free(struct schema_load *l, bool keep)
{
    void *root = l->root;
    sources_free(&l->sources);
    report_free(&l->report);
    for (size_t i = 0; i < l->ndefaults; i++)
        config_destroy(&l->defaults[i].config);
    if (!keep) {
        if (root == NULL && l->meta != NULL) /* nothing is in it yet */
            mem_free(l->meta->origins), mem_free(l->meta);
        schema_free(l->schema, root);
        root = NULL;
    }
    mem_free(l);
    return root;
}

static bool read_main(struct schema_load *l, struct str given, struct buf *errors)
{
    struct buf text = BUF_INIT(SOURCE_SIZE_MAX);
    int e = given.p ? 0 : source_read(l->file, SOURCE_SIZE_MAX, false, &text);
    struct str s = given.p ? given : buf_view(&text);
    if (e == ENOENT || e == ENOTDIR)
        buf_printf(errors, "%s%s\n", missing_prefix, l->file);
    else if (e == ENOMEM)
        l->no_memory = true;
    else if (e != 0)
        buf_printf(errors, "%s: %s\n1 error\n", l->file, strerror(e));
    else
        l->no_memory = !sources_add(&l->sources, l->meta, l->file, s, &l->report);
    buf_free(&text);
    return e == 0;
}

/* The drop-ins are read before the walk, because errors are told by file. */
static void read_drop_ins(struct schema_load *l)
{
    const struct source *main_file = l->sources.v[0];
    const char *dir;
    if (!main_file->parsed || !config_lookup_string(&main_file->config, "include_dir", &dir) ||
        *dir == '\0' || strlen(dir) > VALUE_TEXT_MAX)
        return;
    config_setting_t *s = config_lookup(&main_file->config, "include_dir");
    char *path = source_path(l->file, dir);
    if (path == NULL || !sources_add_dir(&l->sources, l->meta, path,
                                         (struct schema_origin){1, s->line}, &l->report))
        l->no_memory = true;
    mem_free(path);
}

static void check_counts(struct schema_load *l)
{
    for (size_t i = 0; i < l->schema->n; i++) {
        const struct schema_entry *e = &l->schema->entries[i];
        if (e->type == SCHEMA_GROUPS && l->meta->origins[i].source != 0 &&
            *VALUE_CONST(size_t, l->root, e->count_at) < e->min)
            buf_printf(report_open(&l->report, l->meta->origins[i], false),
                       "%s: at least %llu is required", e->path, (unsigned long long)e->min);
    }
}

static void fill(struct schema_load *l)
{
    struct scope sc = {l->schema, l->root, l->meta->origins, ""};
    set_unset(&sc);
    for (size_t i = 0; i < l->sources.n && !l->no_memory; i++)
        if (l->sources.v[i]->parsed)
            walk(l, &sc, config_root_setting(&l->sources.v[i]->config), "", (uint32_t)i + 1);
    finish(l, &sc, (struct schema_origin){1, 0});
    if (l->no_memory || l->sources.broken)
        return;
    check_counts(l);
    if (l->schema->check != NULL)
        l->schema->check(l, l->root);
}

void *schema_load(const struct schema *s, const char *file, struct str text, struct buf *errors)
{
    struct schema_load *l = load_new(s, file);
    bool readable = true;
    if (l != NULL && !l->no_memory)
        readable = read_main(l, text, errors);
    if (readable && l != NULL && !l->no_memory)
        read_drop_ins(l);
    if (readable && l != NULL && !l->no_memory)
        fill(l);
    if (l == NULL || l->no_memory || l->report.no_memory) {
        buf_printf(errors, "%s: out of memory\n1 error\n", file);
        return l ? load_free(l, false) : NULL;
    }
    if (readable)
        report_print(&l->report, l->meta->files, errors);
    return load_free(l, readable && l->report.errors == 0);
}

void schema_no_memory(struct schema_load *l)
{
    l->no_memory = true;
}

bool config_missing(const struct buf *errors)
{
    return str_starts(buf_view(errors), missing_prefix);
}
