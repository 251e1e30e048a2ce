#include "ctl/reader.h"

#include "core/base/mem.h"

struct reader {
    struct document *d;
    const char *p, *end;
    char *to; /* where the next text goes */
    unsigned depth;
};

/* ---- values ---------------------------------------------------------------------------------- */

/* Index of a new value; 0 is the root and, later, a failure. */
static bool add(struct reader *r, enum value_type type, uint32_t *at)
{
    struct document *d = r->d;
    if (d->n == READER_VALUES_MAX)
        return false;
    if (d->n == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 64;
        struct value *v = mem_realloc(d->v, cap * sizeof *v);
        if (v == NULL)
            return false;
        d->v = v;
        d->cap = cap;
    }
    *at = (uint32_t)d->n++;
    d->v[*at] = (struct value){.type = type, .text = ""};
    return true;
}

static void skip_space(struct reader *r)
{
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\t' || *r->p == '\n' || *r->p == '\r'))
        r->p++;
}

static bool take(struct reader *r, char c)
{
    skip_space(r);
    if (r->p == r->end || *r->p != c)
        return false;
    r->p++;
    return true;
}

/* ---- strings --------------------------------------------------------------------------------- */

static void put_character(struct reader *r, uint32_t c)
{
    if (c == 0 || (c >= 0xD800 && c < 0xE000) || c > 0x10FFFF)
        c = 0xFFFD;
    if (c < 0x80) {
        *r->to++ = (char)c;
    } else if (c < 0x800) {
        *r->to++ = (char)(0xC0 | c >> 6);
        *r->to++ = (char)(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        *r->to++ = (char)(0xE0 | c >> 12);
        *r->to++ = (char)(0x80 | (c >> 6 & 0x3F));
        *r->to++ = (char)(0x80 | (c & 0x3F));
    } else {
        *r->to++ = (char)(0xF0 | c >> 18);
        *r->to++ = (char)(0x80 | (c >> 12 & 0x3F));
        *r->to++ = (char)(0x80 | (c >> 6 & 0x3F));
        *r->to++ = (char)(0x80 | (c & 0x3F));
    }
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool take_four(struct reader *r, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < 4; i++) {
        int h = r->p < r->end ? hex(*r->p) : -1;
        if (h < 0)
            return false;
        *out = *out << 4 | (uint32_t)h;
        r->p++;
    }
    return true;
}

/* Behind "\u". A pair of surrogates is one character. */
static bool take_code(struct reader *r)
{
    uint32_t c, low;
    if (!take_four(r, &c))
        return false;
    const char *behind = r->p;
    if (c >= 0xD800 && c < 0xDC00 && r->end - r->p >= 6 && r->p[0] == '\\' && r->p[1] == 'u') {
        r->p += 2;
        if (!take_four(r, &low))
            return false;
        if (low >= 0xDC00 && low < 0xE000)
            c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
        else
            r->p = behind;
    }
    put_character(r, c);
    return true;
}

static bool take_escape(struct reader *r)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (r->p == r->end)
        return false;
    char c = *r->p++;
    if (c == 'u')
        return take_code(r);
    const char *at = c != '\0' ? strchr(from, c) : NULL;
    if (at == NULL)
        return false;
    *r->to++ = to[at - from];
    return true;
}

/* Behind the opening quotation mark. No text is longer than what it was written with. */
static bool take_string(struct reader *r, const char **out)
{
    *out = r->to;
    while (r->p < r->end && *r->p != '"') {
        if ((unsigned char)*r->p < 0x20)
            return false;
        if (*r->p != '\\') {
            *r->to++ = *r->p++;
            continue;
        }
        r->p++;
        if (!take_escape(r))
            return false;
    }
    if (r->p == r->end)
        return false;
    r->p++;
    *r->to++ = '\0';
    return str_utf8((struct str){*out, (size_t)(r->to - *out - 1)});
}

/* ---- the rest -------------------------------------------------------------------------------- */

static bool is_digit(const struct reader *r)
{
    return r->p < r->end && *r->p >= '0' && *r->p <= '9';
}

static bool take_digits(struct reader *r)
{
    if (!is_digit(r))
        return false;
    while (is_digit(r))
        r->p++;
    return true;
}

static bool take_number(struct reader *r, uint32_t at)
{
    const char *from = r->p;
    if (r->p < r->end && *r->p == '-')
        r->p++;
    bool zero = r->p < r->end && *r->p == '0';
    bool ok = zero ? (r->p++, true) : take_digits(r);
    if (ok && r->p < r->end && *r->p == '.') {
        r->p++;
        ok = take_digits(r);
    }
    if (ok && r->p < r->end && (*r->p == 'e' || *r->p == 'E')) {
        r->p++;
        if (r->p < r->end && (*r->p == '+' || *r->p == '-'))
            r->p++;
        ok = take_digits(r);
    }
    if (!ok)
        return false;
    r->d->v[at].text = r->to;
    memcpy(r->to, from, (size_t)(r->p - from));
    r->to += r->p - from;
    *r->to++ = '\0';
    return true;
}

static bool take_word(struct reader *r, uint32_t at)
{
    static const struct {
        const char *word;
        enum value_type type;
    } words[] = {{"true", VALUE_BOOL}, {"false", VALUE_BOOL}, {"null", VALUE_NULL}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        size_t n = strlen(words[i].word);
        if ((size_t)(r->end - r->p) < n || memcmp(r->p, words[i].word, n) != 0)
            continue;
        r->p += n;
        r->d->v[at].type = words[i].type;
        r->d->v[at].text = words[i].word;
        return true;
    }
    return false;
}

static bool take_value(struct reader *r, uint32_t *at);

/* Members or elements, up to the closing bracket. */
static bool take_children(struct reader *r, uint32_t parent, bool object)
{
    uint32_t last = 0, child;
    char closing = object ? '}' : ']';
    if (take(r, closing))
        return true;
    do {
        const char *key = NULL;
        if (object && !(take(r, '"') && take_string(r, &key) && take(r, ':')))
            return false;
        if (!take_value(r, &child))
            return false;
        r->d->v[child].key = key;
        if (last == 0)
            r->d->v[parent].first = child;
        else
            r->d->v[last].next = child;
        last = child;
    } while (take(r, ','));
    return take(r, closing);
}

static bool take_value(struct reader *r, uint32_t *at)
{
    skip_space(r);
    if (r->p == r->end || r->depth == READER_DEPTH_MAX || !add(r, VALUE_NUMBER, at))
        return false;
    bool ok;
    r->depth++;
    if (*r->p == '{' || *r->p == '[') {
        bool object = *r->p++ == '{';
        r->d->v[*at].type = object ? VALUE_OBJECT : VALUE_ARRAY;
        ok = take_children(r, *at, object);
    } else if (*r->p == '"') {
        const char *text;
        r->p++;
        r->d->v[*at].type = VALUE_STRING;
        ok = take_string(r, &text);
        r->d->v[*at].text = text;
    } else if (*r->p == '-' || is_digit(r)) {
        ok = take_number(r, *at);
    } else {
        ok = take_word(r, *at);
    }
    r->depth--;
    return ok;
}

bool document_read(struct document *d, struct str text)
{
    uint32_t root;
    *d = (struct document){.memory = mem_alloc(2 * text.n + 1)};
    if (d->memory == NULL)
        return false;
    struct reader r = {.d = d, .p = text.p, .end = text.p + text.n, .to = d->memory};
    if (!take_value(&r, &root))
        return false;
    skip_space(&r);
    return r.p == r.end;
}

void document_free(struct document *d)
{
    mem_free(d->v);
    mem_free(d->memory);
    *d = (struct document){.v = NULL};
}

const struct value *document_first(const struct document *d, const struct value *of)
{
    return of != NULL && of->first != 0 ? &d->v[of->first] : NULL;
}

const struct value *document_next(const struct document *d, const struct value *v)
{
    return v->next != 0 ? &d->v[v->next] : NULL;
}

const struct value *document_get(const struct document *d, const struct value *of, const char *key)
{
    if (of == NULL || of->type != VALUE_OBJECT)
        return NULL;
    for (const struct value *v = document_first(d, of); v != NULL; v = document_next(d, v))
        if (strcmp(v->key, key) == 0)
            return v;
    return NULL;
}
