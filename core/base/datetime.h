/* Dates and times as protocols write them. */
#ifndef CORE_BASE_DATETIME_H
#define CORE_BASE_DATETIME_H

#include <stdint.h>

#include "core/base/str.h"

/* The DateTime profile of XEP-0082 (2006-12-19T17:58:35Z, with any number of digits of a fraction,
 * and +hh:mm or -hh:mm instead of Z) as milliseconds since 1970. False: not one, or no such day or
 * hour. A leap second counts as the second behind it. */
bool datetime_parse(struct str s, int64_t *ms);

enum { DATETIME_TEXT = 24 };

/* Milliseconds since 1970 in the same form, "2026-11-27T10:00:00Z"; "" for a year that has not four
 * digits. Returns `out`. */
const char *datetime_text(int64_t ms, char out[DATETIME_TEXT]);

#endif
