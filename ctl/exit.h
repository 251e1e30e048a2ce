/* Exit codes of sallyportctl, for scripts. */
#ifndef CTL_EXIT_H
#define CTL_EXIT_H

enum {
    EXIT_OK = 0,
    EXIT_REFUSED = 1,
    EXIT_NOT_RUNNING = 3,
    EXIT_BAD_USAGE = 64,
    EXIT_NO_FILE = 66,
    EXIT_TIMED_OUT = 75,
    EXIT_NOT_PERMITTED = 77,
    EXIT_BAD_CONFIG = 78,
};

#endif
