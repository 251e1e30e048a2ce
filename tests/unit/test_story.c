/* Events: a ring that forgets the oldest, repetitions counted, listeners, the file. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/base/mem.h"
#include "core/daemon/story.h"

static void test_ring(void **state)
{
    (void)state;
    struct story s;
    story_init(&s);
    assert_int_equal(story_first(&s), 0);
    assert_null(story_event(&s, 0));
    for (int i = 1; i <= STORY_MAX + 5; i++)
        story_tell(&s, "test", "beta.lab", "number %d", i);
    assert_int_equal(s.told, STORY_MAX + 5);
    assert_int_equal(story_first(&s), 6);
    assert_null(story_event(&s, 5));
    assert_string_equal(story_event(&s, 6)->text, "number 6");
    assert_string_equal(story_event(&s, STORY_MAX + 5)->subject, "beta.lab");
    assert_null(story_event(&s, STORY_MAX + 6));
    story_free(&s);
}

static void count(void *arg, const struct story_event *e)
{
    assert_string_equal(e->kind, "test");
    ++*(int *)arg;
}

static void test_repetitions(void **state)
{
    (void)state;
    struct story s;
    int heard = 0;
    story_init(&s);
    s.listen = count;
    s.arg = &heard;
    for (int i = 0; i < 1000; i++)
        story_tell(&s, "test", "noisy.lab", "the same");
    story_tell(&s, "test", "other.lab", "the same");
    story_tell(&s, "test", "noisy.lab", "the same");
    assert_int_equal(s.told, 2);
    assert_int_equal(heard, 2);
    assert_int_equal(story_event(&s, 1)->count, 1001);
    story_free(&s);
}

static void test_json(void **state)
{
    (void)state;
    struct story s;
    struct buf out = BUF_INIT(8192);
    story_init(&s);
    story_tell(&s, "refused", NULL, "a \"quote\"\n%s", "x");
    story_json(story_event(&s, 1), &out);
    assert_non_null(strstr(out.p, "\"kind\":\"refused\",\"subject\":\"\",\"text\":\"a \\\"quote\\\""
                                  "\\u000ax\"}}"));
    assert_null(strchr(out.p, '\n'));
    buf_free(&out);
    story_free(&s);
}

static void test_long_texts(void **state)
{
    (void)state;
    static char text[4096];
    struct story s;
    story_init(&s);
    memset(text, 'x', sizeof text - 1);
    story_tell(&s, "test", text, "%s", text);
    assert_int_equal(strlen(story_event(&s, 1)->text), STORY_TEXT_MAX - 1);
    assert_int_equal(strlen(story_event(&s, 1)->subject), STORY_SUBJECT_MAX - 1);
    story_free(&s);
}

static void test_file(void **state)
{
    (void)state;
    struct story s;
    char path[] = "/tmp/sallyport-story-XXXXXX", line[512];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    story_init(&s);
    assert_true(story_file(&s, path));
    story_tell(&s, "test", "beta.lab", "one");
    assert_false(story_file(&s, "/nonexistent/folder/file")); /* the old one stays */
    story_tell(&s, "test", "beta.lab", "two");
    assert_true(story_file(&s, NULL));
    story_tell(&s, "test", "beta.lab", "three");
    FILE *f = fdopen(fd, "r");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof line, f));
    assert_non_null(strstr(line, "\"text\":\"one\"}}\n"));
    assert_non_null(fgets(line, sizeof line, f));
    assert_non_null(strstr(line, "two"));
    assert_null(fgets(line, sizeof line, f));
    fclose(f);
    unlink(path);
    story_free(&s);
}

static void test_without_memory(void **state)
{
    (void)state;
    struct story s;
    story_init(&s);
    for (unsigned long n = 1; n <= 3; n++) {
        mem_fail_after(n);
        story_tell(&s, "test", "beta.lab", "lost");
        mem_fail_after(0);
        assert_int_equal(s.told, 0);
    }
    story_tell(&s, "test", "beta.lab", "kept");
    assert_int_equal(s.told, 1);
    story_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ring), cmocka_unit_test(test_repetitions),
        cmocka_unit_test(test_json), cmocka_unit_test(test_long_texts),
        cmocka_unit_test(test_file), cmocka_unit_test(test_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
