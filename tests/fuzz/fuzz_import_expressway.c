/* Any bytes as a listing of an Expressway: refused with a reason, or a configuration that loads. */
#include <stdint.h>

#include "config/gateway.h"
#include "tests/fake/import_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf text = BUF_INIT(IMPORT_TEXT_MAX), why = BUF_INIT(4096);
    gateway_config_unref(
        import_check("expressway", (struct str){(const char *)data, size}, &text, &why));
    buf_free(&text);
    buf_free(&why);
    return 0;
}
