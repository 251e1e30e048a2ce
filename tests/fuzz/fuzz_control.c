/* The control socket, both ends: any line is read or refused, any words survive quoting, any bytes
 * written as a JSON string are read back, and any reply gives a table or an error. */
#include <stdint.h>
#include <stdlib.h>

#include "core/control/commands.h"
#include "core/control/json.h"
#include "ctl/reader.h"
#include "ctl/table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok)
        abort();
}

/* A last "--from N" is not among the words, and what is then the last would not be either. */
static bool has_from(const struct command_request *r)
{
    bool found = r->from != 0;
    for (size_t i = 0; i < r->nwords; i++)
        found = found || strcmp(r->word[i], "--from") == 0;
    return found;
}

static void check_request(struct str s)
{
    static struct command_request r, again;
    bool ok = command_read(&gateway_commands, s, PRIVILEGE_OPERATE, &r);
    check(ok == (r.error == CONTROL_NONE) && (ok || *r.why != '\0'));
    check(!ok || gateway_commands.v[r.command].privilege <= PRIVILEGE_OPERATE);
    if (r.error == CONTROL_SYNTAX || has_from(&r))
        return;
    struct buf line = BUF_INIT(4 * COMMAND_LINE_MAX);
    for (size_t i = 0; i < r.nwords; i++)
        command_quote(&line, str_c(r.word[i]));
    command_read(&gateway_commands, buf_view(&line), PRIVILEGE_OPERATE, &again);
    if (line.len <= COMMAND_LINE_MAX) {
        check(again.nwords == r.nwords);
        for (size_t i = 0; i < r.nwords; i++)
            check(strcmp(r.word[i], again.word[i]) == 0);
    }
    buf_free(&line);
}

static void check_string(struct str s)
{
    struct buf b = BUF_INIT(16 * s.n + 16);
    struct document d;
    struct json j;
    json_begin(&j, &b);
    json_str(&j, NULL, s.p ? s : STR(""));
    check(!b.failed && memchr(b.p, '\n', b.len) == NULL);
    check(document_read(&d, buf_view(&b)) && d.v->type == VALUE_STRING);
    if (str_utf8(s) && memchr(s.p ? s.p : "x", '\0', s.n) == NULL)
        check(str_is(s, d.v->text));
    document_free(&d);
    buf_free(&b);
}

static void check_reply(struct str s)
{
    struct document d;
    struct buf out = BUF_INIT(1 << 20);
    if (document_read(&d, s) && d.v->type == VALUE_OBJECT)
        table_print(&d, d.v, &out);
    for (size_t i = 0; i < out.len; i++)
        check((unsigned char)out.p[i] >= 0x20 || out.p[i] == '\n');
    buf_free(&out);
    document_free(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str s = {(const char *)data, size};
    check_request(s);
    check_string(s);
    check_reply(s);
    return 0;
}
