/* Requests of the control socket: words, patterns, privilege, suggestions; and the tables. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "core/control/commands.h"

static struct command_request r;

static bool reads(const char *line, enum privilege p)
{
    return command_read(&gateway_commands, str_c(line), p, &r);
}

static void expect_words(const char *line, const char *joined)
{
    struct buf out = BUF_INIT(8192);
    command_read(&gateway_commands, str_c(line), PRIVILEGE_ADMIN, &r);
    for (size_t i = 0; i < r.nwords; i++)
        buf_printf(&out, "[%s]", r.word[i]);
    assert_string_equal(out.p ? out.p : "", joined);
    buf_free(&out);
}

static void test_words(void **state)
{
    (void)state;
    expect_words("status", "[status]");
    expect_words("  status\t ", "[status]");
    expect_words("a b  c", "[a][b][c]");
    expect_words("a \"b c\" d", "[a][b c][d]");
    expect_words("a \"\" d", "[a][][d]");
    expect_words("a x\"y z\"w", "[a][xy zw]");
    expect_words("\"q\\\"\\\\e\"", "[q\"\\e]");
    expect_words("\"a\\n\"", "[a\\n]");
    expect_words("a\\b", "[a\\b]");
}

static void test_bad_lines(void **state)
{
    (void)state;
    static char line[COMMAND_LINE_MAX + 2];
    assert_false(reads("", PRIVILEGE_ADMIN));
    assert_int_equal(r.error, CONTROL_USAGE);
    assert_false(reads(" \t", PRIVILEGE_ADMIN));
    assert_false(reads("close \"x", PRIVILEGE_ADMIN));
    assert_int_equal(r.error, CONTROL_SYNTAX);
    assert_false(command_read(&gateway_commands, STR("sta\0tus"), PRIVILEGE_ADMIN, &r));
    assert_int_equal(r.error, CONTROL_SYNTAX);
    assert_false(reads("st\xff", PRIVILEGE_ADMIN));
    assert_int_equal(r.error, CONTROL_SYNTAX);
    assert_false(reads("st\x1b[2J", PRIVILEGE_ADMIN));
    assert_int_equal(r.error, CONTROL_SYNTAX);
    memset(line, 'a', COMMAND_LINE_MAX + 1);
    assert_false(reads(line, PRIVILEGE_ADMIN));
    assert_int_equal(r.error, CONTROL_SYNTAX);
    line[COMMAND_LINE_MAX] = '\0'; /* as long as may be: a word that nobody knows */
    assert_false(reads(line, PRIVILEGE_ADMIN));
    assert_int_equal(r.error, CONTROL_UNKNOWN);
    memset(line, ' ', 2 * COMMAND_WORDS_MAX + 2);
    for (size_t i = 0; i <= COMMAND_WORDS_MAX; i++)
        line[2 * i] = 'a';
    line[2 * COMMAND_WORDS_MAX + 1] = '\0';
    assert_false(reads(line, PRIVILEGE_ADMIN));
    assert_int_equal(r.error, CONTROL_SYNTAX);
}

/* Every word that can be sent at all comes back as it was. */
static void test_quoting(void **state)
{
    (void)state;
    static const char *const words[] = {"plain", "",     "two words", "q\"uote",  "back\\slash",
                                        "\t",    "\\\"", "ümlaut",    "a\"b c\\", "--from"};
    struct buf line = BUF_INIT(8192);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        command_quote(&line, str_c(words[i]));
    command_read(&gateway_commands, buf_view(&line), PRIVILEGE_ADMIN, &r);
    assert_int_equal(r.nwords, sizeof words / sizeof words[0]);
    for (size_t i = 0; i < r.nwords; i++)
        assert_string_equal(r.word[i], words[i]);
    buf_free(&line);
}

static bool fits(const char *pattern, const char *words)
{
    struct command_request q;
    const struct command any = {"x", pattern, PRIVILEGE_READ, ""};
    const struct command_set set = {"test", &any, 1};
    char line[256];
    snprintf(line, sizeof line, "x %s", words);
    return command_read(&set, str_c(line), PRIVILEGE_READ, &q);
}

static void test_patterns(void **state)
{
    (void)state;
    assert_true(fits("", ""));
    assert_false(fits("", "a"));
    assert_true(fits("PEER", "a"));
    assert_false(fits("PEER", ""));
    assert_false(fits("PEER", "a b"));
    assert_false(fits("PEER", "\"\""));
    assert_true(fits("ID|PEER", "7"));
    assert_true(fits("[MODULE] LEVEL", "debug"));
    assert_true(fits("[MODULE] LEVEL", "dns debug"));
    assert_false(fits("[MODULE] LEVEL", "dns debug more"));
    assert_true(fits("PEER [for TIME]", "a"));
    assert_true(fits("PEER [for TIME]", "a for 1h"));
    assert_false(fits("PEER [for TIME]", "a for"));
    assert_false(fits("PEER [for TIME]", "a or 1h"));
    assert_true(fits("[--balance]", "--balance"));
    assert_false(fits("[--balance]", "--balanc"));
    assert_true(fits("on|off", "off"));
    assert_false(fits("on|off", "of"));
    assert_false(fits("on|off", "on|off"));
    assert_true(fits("[a] [b]", "b"));
    assert_false(fits("[a] [b]", "b a"));
}

static void test_commands(void **state)
{
    (void)state;
    assert_true(reads("dns", PRIVILEGE_READ));
    assert_int_equal(r.command, GATEWAY_DNS);
    assert_true(reads("dns flush", PRIVILEGE_OPERATE));
    assert_int_equal(r.command, GATEWAY_DNS_FLUSH);
    assert_int_equal(r.argc, 0);
    assert_true(reads("config check /etc/x.conf", PRIVILEGE_ADMIN));
    assert_int_equal(r.argc, 1);
    assert_string_equal(r.argv[0], "/etc/x.conf");
    assert_true(reads("block beta.lab for 1h", PRIVILEGE_OPERATE));
    assert_int_equal(r.argc, 3);
    assert_false(reads("block", PRIVILEGE_ADMIN));
    assert_int_equal(r.error, CONTROL_USAGE);
    assert_string_equal(r.why, "usage: block PEER [for DURATION]");
}

static void test_from(void **state)
{
    (void)state;
    assert_true(reads("streams --from 17", PRIVILEGE_READ));
    assert_int_equal(r.from, 17);
    assert_int_equal(r.argc, 0);
    assert_true(reads("streams beta.lab --from 3", PRIVILEGE_READ));
    assert_int_equal(r.argc, 1);
    assert_false(reads("streams --from x", PRIVILEGE_READ));
    assert_false(reads("streams --from -1", PRIVILEGE_READ));
    assert_true(reads("streams", PRIVILEGE_READ));
    assert_int_equal(r.from, 0);
}

/* Nothing above one's privilege, and everything up to it: each row of both tables. */
static void check_privileges(const struct command_set *set)
{
    for (size_t i = 0; i < set->n; i++)
        for (int has = PRIVILEGE_READ; has <= PRIVILEGE_ADMIN; has++) {
            command_read(set, str_c(set->v[i].name), (enum privilege)has, &r);
            bool may = has >= (int)set->v[i].privilege;
            assert_int_equal(r.error == CONTROL_PERMISSION, !may);
            assert_true(r.error != CONTROL_UNKNOWN);
        }
}

static void test_privileges(void **state)
{
    (void)state;
    check_privileges(&gateway_commands);
    check_privileges(&router_commands);
    assert_false(reads("drain", PRIVILEGE_OPERATE));
    assert_string_equal(r.why, "'drain' needs the privilege 'admin', and yours is 'operate'");
}

static void test_suggestions(void **state)
{
    (void)state;
    static const struct {
        const char *typed, *meant;
    } cases[] = {{"statsu", "'status'"},        {"stream", "'streams'"},
                 {"reload", "'config reload'"}, {"config relaod", "'config reload'"},
                 {"flush", "'dns flush'"},      {"log levle", "'log level'"},
                 {"unblok x", "'unblock'"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_false(reads(cases[i].typed, PRIVILEGE_ADMIN));
        assert_int_equal(r.error, CONTROL_UNKNOWN);
        if (strstr(r.why, cases[i].meant) == NULL)
            fail_msg("%s: %s", cases[i].typed, r.why);
    }
    assert_false(reads("xyzzy", PRIVILEGE_ADMIN));
    assert_string_equal(r.why, "unknown command 'xyzzy'");
}

static void test_tables(void **state)
{
    (void)state;
    const struct command_set *sets[] = {&gateway_commands, &router_commands};
    for (size_t s = 0; s < 2; s++)
        for (size_t i = 0; i < sets[s]->n; i++) {
            const struct command *c = &sets[s]->v[i];
            assert_true(*c->help != '\0' && strlen(c->name) + strlen(c->args) < 60);
            for (size_t k = 0; k < i; k++)
                assert_string_not_equal(c->name, sets[s]->v[k].name);
        }
}

static void test_exit_codes(void **state)
{
    (void)state;
    assert_int_equal(control_error_exit(control_error_name(CONTROL_UNKNOWN)), 64);
    assert_int_equal(control_error_exit(control_error_name(CONTROL_PERMISSION)), 77);
    assert_int_equal(control_error_exit(control_error_name(CONTROL_CONFIG)), 78);
    assert_int_equal(control_error_exit(control_error_name(CONTROL_TIMEOUT)), 75);
    assert_int_equal(control_error_exit("something of a later version"), 1);
    assert_int_equal(control_error_exit(""), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),      cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_quoting),    cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_commands),   cmocka_unit_test(test_from),
        cmocka_unit_test(test_privileges), cmocka_unit_test(test_suggestions),
        cmocka_unit_test(test_tables),     cmocka_unit_test(test_exit_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
