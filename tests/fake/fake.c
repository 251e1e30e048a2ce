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
    *f = (struct fake){.now = 1000, .seed = seed, .env = {now_ms, random_bytes, f}};
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
        buf_printf(&all,
                   "\nlinks = ({name = \"core\"; address = \"127.0.0.1:7400\"; "
                   "component = \"edge.alpha.lab\"; secret_file = \"%s\";});\n",
                   secret);
        c = gateway_config_parse("/tmp/test.conf", buf_view(&all), &errors);
    }
    unlink(secret);
    if (c == NULL)
        fprintf(stderr, "%.*s\n", STR_ARG(buf_view(&errors)));
    buf_free(&all);
    buf_free(&errors);
    return c;
}
