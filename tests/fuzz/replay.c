/* Runs a fuzz target over its corpus, tests/fuzz/corpus/<target>/, as an ordinary test: each file
 * also cut at every quarter. Prints one TAP line. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run_file(const char *path)
{
    static uint8_t data[1 << 20];
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        return 0;
    size_t n = fread(data, 1, sizeof data, f);
    fclose(f);
    for (size_t part = 1; part <= 4; part++) {
        uint8_t *copy = malloc(n * part / 4 + 1); /* its own block: over-reads are seen */
        if (copy == NULL)
            return 0;
        memcpy(copy, data, n * part / 4);
        LLVMFuzzerTestOneInput(copy, n * part / 4);
        free(copy);
    }
    return 1;
}

int main(int argc, char **argv)
{
    const char *name = strrchr(argv[0], '-');
    char dir[256], path[1024];
    int files = 0;
    (void)argc;
    snprintf(dir, sizeof dir, "tests/fuzz/corpus/%s", name ? name + 1 : "");
    DIR *d = opendir(dir);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (e->d_name[0] != '.')
            files += run_file(path);
    }
    if (d != NULL)
        closedir(d);
    printf("%s 1 - %d files of %s\n", files > 0 ? "ok" : "not ok", files, dir);
    return files > 0 ? 0 : 1;
}
