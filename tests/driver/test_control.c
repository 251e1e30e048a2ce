/* The control socket on a loop: requests in pieces, waiting and following commands, clients that
 * leave, a file left over, and memory that runs out at every place. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/base/mem.h"
#include "core/net/control.h"

static char folder[] = "/tmp/sallyport-control-XXXXXX";
static char path[64];

struct bench {
    struct loop loop;
    struct control *control;
    struct control_call *waiting, *following;
    unsigned gone;
};

/* ---- commands -------------------------------------------------------------------------------- */

static void do_hello(struct control_call *call)
{
    json_c(&call->json, "hello", call->request->argc ? call->request->argv[0] : "world");
}

static void do_many(struct control_call *call)
{
    char text[1000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    control_rows(call, "rows");
    for (int i = 0; i < 3000; i++) {
        const struct kv kv[] = {KV_I("n", i), KV_C("text", text)};
        control_row(call, kv, 2);
    }
    control_rows_end(call);
}

static void do_huge(struct control_call *call)
{
    for (int i = 0; i < 100000; i++)
        json_c(&call->json, "member", "and another one, without any regard for the limit");
}

static void forget(struct control_call *call)
{
    struct bench *b = call->arg;
    b->gone++;
    b->waiting = b->following = NULL;
}

static void do_wait(struct control_call *call)
{
    ((struct bench *)call->arg)->waiting = call;
    control_later(call, forget);
}

static void do_follow(struct control_call *call)
{
    ((struct bench *)call->arg)->following = call;
    control_follow(call, forget);
}

static const struct command commands[] = {{"hello", "[NAME]", PRIVILEGE_READ, "greets"},
                                          {"many", "", PRIVILEGE_READ, "more than one page"},
                                          {"huge", "", PRIVILEGE_READ, "too much"},
                                          {"wait", "", PRIVILEGE_READ, "answers later"},
                                          {"follow", "", PRIVILEGE_READ, "goes on"}};
static const struct command_set set = {"test", commands, sizeof commands / sizeof commands[0]};
static void (*const run[])(struct control_call *) = {do_hello, do_many, do_huge, do_wait,
                                                     do_follow};

/* ---- the bench ------------------------------------------------------------------------------- */

static struct control *make(struct bench *b, char why[CONTROL_WHY_MAX])
{
    struct control_options o = {.path = path, .mode = 0600, .commands = &set, .run = run, .arg = b};
    return control_new(&b->loop, &o, why);
}

static void begin(struct bench *b)
{
    char why[CONTROL_WHY_MAX];
    *b = (struct bench){.gone = 0};
    assert_true(loop_init(&b->loop, &env_system, NULL));
    b->control = make(b, why);
    assert_non_null(b->control);
}

static void finish(struct bench *b)
{
    control_close(b->control);
    loop_close(&b->loop);
    assert_int_equal(access(path, F_OK), -1);
}

static int dial(void)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    str_copy(sa.sun_path, sizeof sa.sun_path, str_c(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    return fd;
}

static void turns(struct bench *b, int n)
{
    for (int i = 0; i < n; i++)
        loop_turn(&b->loop);
}

/* Up to the end of a line, or to the end of the connection; false: neither within 10 s. */
static bool receive(struct bench *b, int fd, struct buf *out)
{
    uint64_t end = loop_now(&b->loop) + 10000;
    char piece[4096];
    buf_clear(out);
    while (loop_now(&b->loop) < end) {
        loop_turn(&b->loop);
        ssize_t n = recv(fd, piece, sizeof piece, MSG_PEEK);
        const char *nl = n > 0 ? memchr(piece, '\n', (size_t)n) : NULL;
        if (n == 0)
            return true;
        if (n < 0)
            continue;
        n = recv(fd, piece, nl ? (size_t)(nl - piece) + 1 : (size_t)n, 0);
        buf_put(out, piece, (size_t)n);
        if (nl != NULL)
            return true;
    }
    return false;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void expect(struct bench *b, int fd, const char *text)
{
    struct buf line = BUF_INIT(4 << 20);
    assert_true(receive(b, fd, &line));
    assert_string_equal(line.len ? line.p : "", text);
    buf_free(&line);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void test_requests(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    int fd = dial();
    say(fd, "hel");
    turns(&b, 5);
    say(fd, "lo\nhello \"two words\"\r\nnope\n");
    expect(&b, fd, "{\"ok\":{\"hello\":\"world\"}}\n");
    expect(&b, fd, "{\"ok\":{\"hello\":\"two words\"}}\n");
    expect(&b, fd,
           "{\"error\":{\"code\":\"unknown-command\",\"text\":\"unknown command 'nope'\"}}\n");
    say(fd, "hello");
    shutdown(fd, SHUT_WR); /* half a line is no request */
    expect(&b, fd, "");
    close(fd);
    finish(&b);
}

static void test_pages(void **state)
{
    (void)state;
    struct bench b;
    struct buf line = BUF_INIT(4 << 20);
    char request[64];
    size_t rows = 0, next = 0, pages = 0;
    begin(&b);
    int fd = dial();
    do {
        snprintf(request, sizeof request, next ? "many --from %zu\n" : "many\n", next);
        say(fd, request);
        assert_true(receive(&b, fd, &line));
        assert_true(line.len <= CONTROL_REPLY_MAX + 2);
        for (const char *p = line.p; (p = strstr(p, "{\"n\":")) != NULL; p++)
            assert_int_equal(strtoul(p + 5, NULL, 10), rows++);
        const char *more = strstr(line.p, "\"more\":");
        next = more != NULL ? strtoul(more + 7, NULL, 10) : 0;
        pages++;
    } while (next != 0);
    assert_int_equal(rows, 3000);
    assert_true(pages == 4);
    say(fd, "huge\n");
    assert_true(receive(&b, fd, &line));
    assert_non_null(strstr(line.p, "\"code\":\"failed\""));
    close(fd);
    buf_free(&line);
    finish(&b);
}

static void test_later(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    int fd = dial();
    say(fd, "wait\nhello\n");
    turns(&b, 20);
    assert_non_null(b.waiting);
    json_int(&b.waiting->json, "answer", 42);
    control_done(b.waiting);
    b.waiting = NULL;
    expect(&b, fd, "{\"ok\":{\"answer\":42}}\n");
    expect(&b, fd, "{\"ok\":{\"hello\":\"world\"}}\n");
    assert_int_equal(b.gone, 0);
    say(fd, "wait\n");
    turns(&b, 20);
    assert_non_null(b.waiting);
    finish(&b); /* it ends with a question open */
    assert_int_equal(b.gone, 1);
    close(fd);
}

static void test_follow(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    int fd = dial();
    say(fd, "follow\n");
    expect(&b, fd, "{\"ok\":{}}\n");
    control_say(b.following, STR("{\"event\":{}}"));
    expect(&b, fd, "{\"event\":{}}\n");
    close(fd);
    turns(&b, 20);
    assert_int_equal(b.gone, 1);
    fd = dial(); /* one that does not read is cut off, and the rest of the world goes on */
    say(fd, "follow\n");
    turns(&b, 20);
    for (int i = 0; i < 2000000 && b.following != NULL; i++)
        control_say(b.following, STR("{\"event\":{\"text\":\"nobody reads this\"}}"));
    assert_int_equal(b.gone, 2);
    close(fd);
    finish(&b);
}

static void test_files(void **state)
{
    (void)state;
    struct bench b, second = {.gone = 0};
    char why[CONTROL_WHY_MAX];
    struct stat st;
    begin(&b);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_true(loop_init(&second.loop, &env_system, NULL));
    assert_null(make(&second, why));
    assert_non_null(strstr(why, "in use"));
    /* Whoever has put his own there keeps it. */
    assert_int_equal(unlink(path), 0);
    second.control = make(&second, why);
    assert_non_null(second.control);
    control_close(b.control);
    loop_close(&b.loop);
    assert_int_equal(access(path, F_OK), 0);
    finish(&second);
    int fd = open(path, O_CREAT | O_WRONLY, 0600); /* no socket: not ours to remove */
    close(fd);
    assert_true(loop_init(&second.loop, &env_system, NULL));
    assert_null(make(&second, why));
    assert_non_null(strstr(why, "no socket"));
    loop_close(&second.loop);
    unlink(path);
}

/* Everything may fail to be had; then something is lost, and all works again afterwards. */
static void test_without_memory(void **state)
{
    (void)state;
    struct buf line = BUF_INIT(65536);
    for (unsigned long n = 1; n < 40; n++) {
        struct bench b;
        begin(&b);
        mem_fail_after(n);
        int fd = dial();
        say(fd, "hello\nwait\n");
        turns(&b, 30);
        mem_fail_after(0);
        close(fd);
        turns(&b, 30);
        b.waiting = NULL;
        fd = dial();
        say(fd, "hello again\n");
        buf_clear(&line);
        assert_true(receive(&b, fd, &line));
        assert_string_equal(line.p, "{\"ok\":{\"hello\":\"again\"}}\n");
        close(fd);
        finish(&b);
    }
    buf_free(&line);
}

static int make_folder(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/c.sock", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests), cmocka_unit_test(test_pages),
        cmocka_unit_test(test_later),    cmocka_unit_test(test_follow),
        cmocka_unit_test(test_files),    cmocka_unit_test(test_without_memory),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
