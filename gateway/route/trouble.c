#include "gateway/route/trouble.h"

enum { LOOKUPS = 3, NAMES = 2, FULL_PERCENT = 80, ROOM_PERCENT = 50 };

bool dns_trouble(struct dns_trouble *t, struct str name, bool answered)
{
    if (answered) {
        *t = (struct dns_trouble){.lookups = 0};
        return false;
    }
    t->names += !str_is(name, t->last);
    t->lookups++;
    str_copy(t->last, sizeof t->last, name);
    return t->lookups >= LOOKUPS && t->names >= NAMES;
}

bool near_full(bool was, size_t used, size_t most)
{
    return used / 100.0 >= most / 100.0 / 100.0 * (was ? ROOM_PERCENT : FULL_PERCENT);
}
