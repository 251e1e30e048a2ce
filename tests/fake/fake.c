#include "tests/fake/fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char old_secret[] = "old";
static char *const previous[] = {old_secret};
const struct dialback_secrets fake_secrets = {"new", previous, 1};

/* splitmix64 (Vigna): every seed gives a good sequence. */
uint64_t fake_next(struct fake *f)
{
    uint64_t z = f->seed += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

size_t fake_below(struct fake *f, size_t below)
{
    return (size_t)(fake_next(f) % below);
}

static uint64_t now_ms(void *ctx)
{
    return ((struct fake *)ctx)->now;
}

static bool random_bytes(void *ctx, unsigned char *out, size_t n)
{
    struct fake *f = ctx;
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)fake_next(f);
    return !f->no_random;
}

void fake_init(struct fake *f, uint64_t seed)
{
    *f = (struct fake){
        .now = 1000, .seed = seed, .env = {.now_ms = now_ms, .random = random_bytes, .ctx = f}};
}

/* A link needs a file with its password; it is read while the text is parsed. */
static bool write_secret(char *path)
{
    int fd = mkstemp(path);
    bool ok = fd >= 0 && write(fd, "inside\n", 7) == 7;
    if (fd >= 0)
        close(fd);
    return ok;
}

/* That of the whole configuration. */
static const char *inside_mode(const char *text)
{
    static const char *const modes[] = {"no-tls", "tls-required"};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        char line[64];
        snprintf(line, sizeof line, "security_mode = \"%s\"", modes[i]);
        if (strstr(text, line) != NULL)
            return modes[i];
    }
    return "tls-optional";
}

struct gateway_config *fake_config(const char *text)
{
    char secret[] = "/tmp/sallyport-test.XXXXXX";
    struct buf all = BUF_INIT(1 << 20), errors = BUF_INIT(1 << 16);
    struct gateway_config *c = NULL;
    if (write_secret(secret)) {
        buf_puts(&all, text);
        if (strstr(text, "domains") == NULL)
            buf_puts(&all, "\ndomains = ({name = \"alpha.lab\";}, {name = \"gamma.lab\";});");
        if (strstr(text, "privacy_mode") == NULL)
            buf_puts(&all, "\nprivacy_mode = \"off\";");
        if (strstr(text, "links") == NULL)
            buf_printf(&all,
                       "\nlinks = ({name = \"core\"; address = \"127.0.0.1:7400\"; "
                       "component = \"edge.alpha.lab\"; secret_file = \"%s\";},"
                       "{name = \"inside\"; protocol = \"s2s\"; address = \"127.0.0.1:7401\"; "
                       "listen = [\"127.0.0.1:7402\"]; security_mode = \"%s\";});\n",
                       secret, inside_mode(text));
        c = gateway_config_parse("/tmp/test.conf", buf_view(&all), &errors);
    }
    unlink(secret);
    if (c == NULL)
        fprintf(stderr, "%.*s\n", STR_ARG(buf_view(&errors)));
    buf_free(&all);
    buf_free(&errors);
    return c;
}
