/* One setting of libconfig's tree into one field of the snapshot. */
#include "config/domains.h"
#include "config/load_priv.h"
#include "config/value.h"

#include "core/base/mem.h"

static void put_setting(struct buf *b, config_setting_t *s)
{
    switch (config_setting_type(s)) {
    case CONFIG_TYPE_STRING:
        buf_putc(b, '"');
        report_quote(b, str_c(config_setting_get_string(s)));
        buf_putc(b, '"');
        break;
    case CONFIG_TYPE_BOOL:
        buf_puts(b, config_setting_get_bool(s) ? "true" : "false");
        break;
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_INT64:
        buf_printf(b, "%lld", config_setting_get_int64(s));
        break;
    case CONFIG_TYPE_FLOAT:
        buf_printf(b, "%g", config_setting_get_float(s));
        break;
    case CONFIG_TYPE_GROUP:
        buf_puts(b, config_setting_length(s) ? "{...}" : "{}");
        break;
    case CONFIG_TYPE_ARRAY:
        buf_puts(b, config_setting_length(s) ? "[...]" : "[]");
        break;
    default:
        buf_puts(b, config_setting_length(s) ? "(...)" : "()");
        break;
    }
}

struct buf *convert_key_error(struct schema_load *l, const struct value_in *in)
{
    struct buf *b = report_open(&l->report, in->at, false);
    buf_printf(b, "%s%s", in->scope->name, in->e->path);
    return b;
}

struct buf *convert_error(struct schema_load *l, const struct value_in *in)
{
    struct buf *b = convert_key_error(l, in);
    buf_puts(b, " = ");
    put_setting(b, in->setting);
    buf_puts(b, ": ");
    return b;
}

bool convert_limited(struct schema_load *l, const struct value_in *in, uint64_t value)
{
    if (!(in->e->flags & SCHEMA_LIMITED) || value <= in->e->available)
        return false;
    buf_puts(convert_error(l, in), "not available in this version");
    return true;
}

void *convert_grow(struct schema_load *l, void *array, size_t n, size_t size)
{
    char *v = array;
    if ((n & (n - 1)) == 0)
        v = mem_realloc(array, (n ? n * 2 : 1) * size);
    if (v == NULL)
        l->no_memory = true;
    else
        memset(v + n * size, 0, size);
    return v;
}

static void take_bool(struct schema_load *l, const struct value_in *in)
{
    if (config_setting_type(in->setting) != CONFIG_TYPE_BOOL) {
        buf_puts(convert_error(l, in), "must be true or false, without quotes");
        return;
    }
    bool v = config_setting_get_bool(in->setting) == CONFIG_TRUE;
    if (convert_limited(l, in, v) || in->e->at == SCHEMA_NOWHERE)
        return;
    if (in->e->type == SCHEMA_TRISTATE)
        *VALUE_FIELD(int, in->scope->base, in->e->at) = v;
    else
        *VALUE_FIELD(bool, in->scope->base, in->e->at) = v;
}

static void refuse_enum(struct schema_load *l, const struct value_in *in, const char *given)
{
    struct buf *b = convert_error(l, in);
    const char *best = NULL;
    bool limited = in->e->flags & SCHEMA_LIMITED;
    buf_puts(b, "must be one of ");
    for (const struct schema_name *n = in->e->names; n->name != NULL; n++) {
        if (limited && (uint64_t)(n - in->e->names) > in->e->available)
            break;
        buf_printf(b, "%s%s", n == in->e->names ? "" : ", ", n->name);
        if (given && (best == NULL || str_distance(given, n->name) < str_distance(given, best)))
            best = n->name;
    }
    if (given != NULL)
        report_suggest(b, given, best);
}

/* NULL after a report. */
static const struct schema_name *choice(struct schema_load *l, const struct value_in *in)
{
    const char *given = NULL;
    if (config_setting_type(in->setting) == CONFIG_TYPE_STRING)
        given = config_setting_get_string(in->setting);
    for (const struct schema_name *n = in->e->names; given && n->name != NULL; n++)
        if (strcmp(n->name, given) == 0)
            return convert_limited(l, in, (uint64_t)(n - in->e->names)) ? NULL : n;
    refuse_enum(l, in, given);
    return NULL;
}

static void take_enum(struct schema_load *l, const struct value_in *in)
{
    const struct schema_name *n = choice(l, in);
    if (n != NULL && in->e->at != SCHEMA_NOWHERE)
        *VALUE_FIELD(int, in->scope->base, in->e->at) = n->value;
}

static void take_set(struct schema_load *l, const struct value_in *in)
{
    int type = config_setting_type(in->setting);
    unsigned given = (unsigned)config_setting_length(in->setting), set = 0;
    if ((type != CONFIG_TYPE_ARRAY && type != CONFIG_TYPE_LIST) || given == 0) {
        struct buf *b = convert_error(l, in);
        buf_puts(b, "must be a list of at least one of");
        for (const struct schema_name *n = in->e->names; n->name != NULL; n++)
            buf_printf(b, "%s \"%s\"", n == in->e->names ? "" : ",", n->name);
        return;
    }
    for (unsigned i = 0; i < given; i++) {
        struct value_in one = *in;
        one.setting = config_setting_get_elem(in->setting, i);
        const struct schema_name *n = choice(l, &one);
        set |= n != NULL ? (unsigned)n->value : 0;
    }
    *VALUE_FIELD(unsigned, in->scope->base, in->e->at) = set;
}

static void put_bound(struct buf *b, const struct schema_entry *e, uint64_t v)
{
    if (e->type == SCHEMA_INT) {
        buf_printf(b, "%llu", (unsigned long long)v);
        return;
    }
    buf_putc(b, '"');
    if (e->type == SCHEMA_SIZE)
        size_put(b, v);
    else
        duration_put(b, v);
    buf_putc(b, '"');
}

static void store_number(struct schema_load *l, const struct value_in *in, bool negative,
                         uint64_t v)
{
    const struct schema_entry *e = in->e;
    if (negative || v < e->min || v > e->max) {
        struct buf *b = convert_error(l, in);
        buf_puts(b, "must be from ");
        put_bound(b, e, e->min);
        buf_puts(b, " to ");
        put_bound(b, e, e->max);
    } else if (!convert_limited(l, in, v) && e->at != SCHEMA_NOWHERE) {
        *VALUE_FIELD(uint64_t, in->scope->base, e->at) = v;
    }
}

static void take_int(struct schema_load *l, const struct value_in *in)
{
    int type = config_setting_type(in->setting);
    if (type != CONFIG_TYPE_INT && type != CONFIG_TYPE_INT64) {
        buf_puts(convert_error(l, in), "must be a whole number, without quotes");
        return;
    }
    long long v = config_setting_get_int64(in->setting);
    store_number(l, in, v < 0, v < 0 ? 0 : (uint64_t)v);
}

/* Durations and sizes are texts: a bare number would leave its unit to be guessed. */
static void take_unit(struct schema_load *l, const struct value_in *in)
{
    bool size = in->e->type == SCHEMA_SIZE;
    uint64_t v;
    if (config_setting_type(in->setting) == CONFIG_TYPE_STRING) {
        struct str s = str_c(config_setting_get_string(in->setting));
        if (size ? size_parse(s, &v) : duration_parse(s, &v)) {
            store_number(l, in, false, v);
            return;
        }
    }
    buf_puts(convert_error(l, in),
             size ? "must be a size in quotes, e.g. \"4096\", \"64K\", \"10M\" or \"1G\""
                  : "must be a duration in quotes, e.g. \"500ms\", \"30s\", \"5m\" or \"1h\"");
}

static void take_until(struct schema_load *l, const struct value_in *in)
{
    const char *text = config_setting_get_string(in->setting);
    if (text == NULL || !until_parse(str_c(text), VALUE_FIELD(int64_t, in->scope->base, in->e->at)))
        buf_puts(convert_error(l, in),
                 "must be a day in quotes, e.g. \"2026-12-31\" (all of it), or "
                 "a time, e.g. \"2026-12-31T18:00:00Z\"");
}

/* The canonical form of one text, or NULL after a report. */
static char *take_one(struct schema_load *l, const struct value_in *in)
{
    struct buf canonical = BUF_INIT(VALUE_TEXT_MAX * 2);
    char *v = NULL;
    const char *problem = "must be a text in quotes";
    if (config_setting_type(in->setting) == CONFIG_TYPE_STRING)
        problem =
            value_check(in->e->check, l->file, config_setting_get_string(in->setting), &canonical);
    if (problem != NULL)
        buf_puts(convert_error(l, in), problem);
    else if (canonical.failed || (v = mem_strndup(buf_view(&canonical))) == NULL)
        l->no_memory = true;
    buf_free(&canonical);
    return v;
}

static char *take_secret_of(struct schema_load *l, const struct value_in *in, const char *path)
{
    struct buf why = BUF_INIT(512);
    char *secret = value_secret(path, &why);
    if (secret == NULL && why.len)
        buf_str(convert_error(l, in), buf_view(&why));
    else if (secret == NULL)
        l->no_memory = true;
    buf_free(&why);
    return secret;
}

/* Faults of a listed file are told as those of our own files are: with its name and line. */
struct list_faults {
    struct schema_load *l;
    const struct value_in *in;
    const char *path;
    uint32_t source; /* 0: not told of yet */
};

static uint32_t source_of(struct schema_load *l, const char *path)
{
    struct schema_meta *m = l->meta;
    char **files = mem_realloc(m->files, (m->nfiles + 1) * sizeof *files);
    m->files = files != NULL ? files : m->files;
    char *name = files != NULL ? mem_strdup(path) : NULL;
    if (name == NULL) {
        l->no_memory = true;
        return 0;
    }
    m->files[m->nfiles] = name;
    return (uint32_t)++m->nfiles;
}

static void list_fault(void *arg, unsigned line, bool warning, const char *text)
{
    struct list_faults *f = arg;
    if (f->source == 0)
        f->source = source_of(f->l, f->path);
    if (f->source != 0 && line != 0)
        buf_puts(report_open(&f->l->report, (struct schema_origin){f->source, line}, warning),
                 text);
    else if (f->source != 0)
        buf_puts(convert_error(f->l, f->in), text);
}

static void take_domains(struct schema_load *l, const struct value_in *in, const char *path)
{
    struct list_faults f = {.l = l, .in = in, .path = path};
    struct domain_list *list = domain_list_read(path, list_fault, &f);
    l->no_memory = l->no_memory || list == NULL;
    *VALUE_FIELD(struct domain_list *, in->scope->base, in->e->secret_at) = list;
}

static void take_text(struct schema_load *l, const struct value_in *in)
{
    const struct schema_entry *e = in->e;
    const char *text = config_setting_get_string(in->setting);
    if (text != NULL && *text == '\0') {
        if (e->flags & SCHEMA_REQUIRED)
            buf_puts(convert_error(l, in), "must not be empty");
        return; /* as if it were absent */
    }
    char *v = take_one(l, in);
    if (v == NULL)
        return;
    *VALUE_FIELD(char *, in->scope->base, e->at) = v;
    if (e->type == SCHEMA_SECRET)
        *VALUE_FIELD(char *, in->scope->base, e->secret_at) = take_secret_of(l, in, v);
    if (e->type == SCHEMA_DOMAINS)
        take_domains(l, in, v);
}

static void append_cidr(struct schema_load *l, const struct value_in *in, size_t *n)
{
    struct cidr c;
    const char *text = config_setting_get_string(in->setting);
    if (text == NULL || !cidr_parse(str_c(text), &c)) {
        buf_puts(convert_error(l, in), "must be a network in quotes, e.g. \"10.0.0.0/8\"");
        return;
    }
    struct cidr **v = VALUE_FIELD(struct cidr *, in->scope->base, in->e->at);
    struct cidr *grown = convert_grow(l, *v, *n, sizeof **v);
    if (grown == NULL)
        return;
    *v = grown;
    grown[(*n)++] = c;
}

/* Both arrays of a list of secrets have the same length, also after a failure. */
static void append_text(struct schema_load *l, const struct value_in *in, size_t *n)
{
    const struct schema_entry *e = in->e;
    bool with_secret = e->type == SCHEMA_SECRETS;
    char *text = take_one(l, in), *secret = NULL;
    if (text == NULL)
        return;
    char ***v = VALUE_FIELD(char **, in->scope->base, e->at), **grown, **contents = NULL;
    if ((grown = convert_grow(l, *v, *n, sizeof **v)) != NULL)
        *v = grown;
    if (with_secret) {
        char ***sv = VALUE_FIELD(char **, in->scope->base, e->secret_at);
        if ((contents = convert_grow(l, *sv, *n, sizeof **sv)) != NULL)
            *sv = contents;
        secret = take_secret_of(l, in, text);
    }
    if (l->no_memory || (with_secret && secret == NULL)) {
        mem_free(text);
        value_wipe(secret);
        return;
    }
    grown[*n] = text;
    if (with_secret)
        contents[*n] = secret;
    (*n)++;
}

static void take_list(struct schema_load *l, const struct value_in *in)
{
    const struct schema_entry *e = in->e;
    int type = config_setting_type(in->setting);
    if (e->flags & SCHEMA_OR_ONE && type == CONFIG_TYPE_STRING) {
        append_text(l, in, VALUE_FIELD(size_t, in->scope->base, e->count_at));
        return;
    }
    if (type != CONFIG_TYPE_ARRAY && type != CONFIG_TYPE_LIST) {
        buf_puts(convert_error(l, in), "must be a list of texts, e.g. [\"a\", \"b\"]");
        return;
    }
    unsigned given = (unsigned)config_setting_length(in->setting);
    if (convert_limited(l, in, given) || e->at == SCHEMA_NOWHERE)
        return;
    size_t *n = VALUE_FIELD(size_t, in->scope->base, e->count_at);
    if (given > e->max || *n > e->max - given) {
        buf_printf(convert_error(l, in), "at most %llu are allowed", (unsigned long long)e->max);
        return;
    }
    for (unsigned i = 0; i < given && !l->no_memory; i++) {
        struct value_in one = *in;
        one.setting = config_setting_get_elem(in->setting, i);
        if (one.at.source)
            one.at.line = one.setting->line;
        if (e->type == SCHEMA_CIDRS)
            append_cidr(l, &one, n);
        else
            append_text(l, &one, n);
    }
}

void convert_value(struct schema_load *l, const struct value_in *in)
{
    switch (in->e->type) {
    case SCHEMA_BOOL:
    case SCHEMA_TRISTATE:
        take_bool(l, in);
        break;
    case SCHEMA_SET:
        take_set(l, in);
        break;
    case SCHEMA_ENUM:
        take_enum(l, in);
        break;
    case SCHEMA_INT:
        take_int(l, in);
        break;
    case SCHEMA_DURATION:
    case SCHEMA_SIZE:
        take_unit(l, in);
        break;
    case SCHEMA_UNTIL:
        take_until(l, in);
        break;
    case SCHEMA_STRING:
    case SCHEMA_SECRET:
    case SCHEMA_DOMAINS:
        take_text(l, in);
        break;
    case SCHEMA_STRINGS:
    case SCHEMA_CIDRS:
    case SCHEMA_SECRETS:
        take_list(l, in);
        break;
    case SCHEMA_GROUPS:
        break;
    }
}
