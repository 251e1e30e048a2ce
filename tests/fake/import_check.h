/* Imports into memory and loads what was written, as `sallyport -t` would. */
#ifndef TESTS_FAKE_IMPORT_CHECK_H
#define TESTS_FAKE_IMPORT_CHECK_H

#include "ctl/import.h"

struct gateway_config;

/* One file called "in". The configuration, or NULL: it was refused, and `why` holds a line. Ends
 * the program when what was written does not load. `text`, `why`: for looking at. */
struct gateway_config *import_check(const char *dialect, struct str in, struct buf *text,
                                    struct buf *why);

#endif
