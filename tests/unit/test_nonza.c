#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/xml/nonza.h"
#include "core/xml/nonza_priv.h"

/* <f xmlns='x' a='1' y:a='2'>p<g xmlns='y'>q<h/></g>r<g b=''/>s</f> */
static void fill(struct nonza *z)
{
    nonza_begin(z);
    assert_true(nonza_open(z, STR("x"), STR("f"), 0));
    assert_true(nonza_put_attr(z, STR("y"), STR("a"), STR("2")));
    assert_true(nonza_put_attr(z, STR_NONE, STR("a"), STR("1")));
    assert_true(nonza_put_text(z, 0, STR("p")));
    assert_true(nonza_open(z, STR("y"), STR("g"), 1));
    assert_true(nonza_put_text(z, 1, STR("q")));
    assert_true(nonza_open(z, STR("y"), STR("h"), 2));
    assert_true(nonza_put_text(z, 0, STR("r")));
    assert_true(nonza_open(z, STR("x"), STR("g"), 1));
    assert_true(nonza_put_attr(z, STR_NONE, STR("b"), STR("")));
    assert_true(nonza_put_text(z, 0, STR("s")));
}

static void questions(void **state)
{
    static struct nonza z;
    (void)state;
    for (unsigned round = 0; round < 2; round++) {
        fill(&z);
        assert_true(nonza_is(&z, "x", "f"));
        assert_false(nonza_is(&z, "y", "f"));
        assert_false(nonza_is(&z, "x", "g"));
        assert_true(str_is(nonza_attr(&z, "a"), "1"));
        assert_null(nonza_attr(&z, "b").p);
        assert_true(str_is(nonza_text(&z), "prs"));
        int g = nonza_child(&z, 0, "y", "g");
        assert_int_equal(g, 1);
        assert_true(str_is(z.node[g].text, "q"));
        assert_int_equal(nonza_child(&z, 0, "x", NULL), 3);
        assert_int_equal(nonza_child(&z, 0, "x", "g"), 3);
        assert_int_equal(nonza_child(&z, 0, "y", "h"), -1);
        assert_int_equal(nonza_child(&z, g, "y", "h"), 2);
        assert_int_equal(nonza_child(&z, g, "x", "g"), -1);
        assert_int_equal(nonza_child(&z, 3, "x", NULL), -1);
        assert_int_equal(nonza_child(&z, 4, "x", NULL), -1);
        assert_int_equal(nonza_child(&z, -1, "x", NULL), -1);
        assert_int_equal(z.node[3].nattrs, 1);
        assert_non_null(z.attrs[z.node[3].attr].value.p);
    }
    nonza_begin(&z);
    assert_false(nonza_is(&z, "x", "f"));
    assert_null(nonza_attr(&z, "a").p);
    assert_int_equal(nonza_text(&z).n, 0);
}

static void full(void **state)
{
    static struct nonza z;
    static char big[NONZA_BYTES];
    (void)state;
    nonza_begin(&z);
    for (unsigned i = 0; i < NONZA_NODES; i++)
        assert_true(nonza_open(&z, STR_NONE, STR("a"), i != 0));
    assert_false(nonza_open(&z, STR_NONE, STR("a"), 1));
    for (unsigned i = 0; i < NONZA_ATTRS; i++)
        assert_true(nonza_put_attr(&z, STR_NONE, STR(""), STR("")));
    assert_false(nonza_put_attr(&z, STR_NONE, STR(""), STR("")));
    size_t left = NONZA_BYTES - z.nbytes;
    assert_true(nonza_put_text(&z, 0, (struct str){big, left - 1}));
    assert_true(nonza_put_text(&z, 0, STR("x")));
    assert_false(nonza_put_text(&z, 0, STR("x")));
    assert_true(nonza_put_text(&z, 0, STR("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(questions), cmocka_unit_test(full)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
