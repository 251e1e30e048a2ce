#include "ctl/complete.h"

#include "ctl/local.h"

/* The literal words of a pattern, "[for DURATION]" -> "for", "on|off" -> "on off". */
static void put_literals(const char *args, struct buf *out)
{
    while (*args != '\0') {
        size_t n = strcspn(args, " []|");
        if (n > 0 && (*args < 'A' || *args > 'Z'))
            buf_printf(out, " %.*s", (int)n, args);
        args += n + (args[n] != '\0');
    }
}

static bool names_file(const char *args)
{
    return strstr(args, "FILE") != NULL;
}

/* Does an earlier row begin with the same word? */
static bool is_repeated(const struct command_set *set, size_t i)
{
    size_t n = strcspn(set->v[i].name, " ");
    for (size_t k = 0; k < i; k++)
        if (strcspn(set->v[k].name, " ") == n && strncmp(set->v[k].name, set->v[i].name, n) == 0)
            return true;
    return false;
}

static void put_first_words(const struct command_set *set, struct buf *out)
{
    for (size_t i = 0; i < set->n; i++)
        if (!is_repeated(set, i))
            buf_printf(out, " %.*s", (int)strcspn(set->v[i].name, " "), set->v[i].name);
}

/* What may follow the first word of a row, from all rows that begin with it. */
static void put_second_words(const struct command_set *set, size_t i, struct buf *out)
{
    size_t n = strcspn(set->v[i].name, " ");
    for (size_t k = i; k < set->n; k++) {
        const struct command *c = &set->v[k];
        if (strcspn(c->name, " ") != n || strncmp(c->name, set->v[i].name, n) != 0)
            continue;
        if (c->name[n] != '\0')
            buf_printf(out, " %s", c->name + n + 1);
        else
            put_literals(c->args, out);
    }
}

static void put_cases(const struct command_set *set, struct buf *out)
{
    for (size_t i = 0; i < set->n; i++) {
        if (is_repeated(set, i))
            continue;
        buf_printf(out, "        %.*s) words=\"", (int)strcspn(set->v[i].name, " "),
                   set->v[i].name);
        put_second_words(set, i, out);
        buf_puts(out, "\" ;;\n");
    }
}

static void put_set(const struct command_set *set, const char *name, struct buf *out)
{
    buf_printf(out, "_sallyportctl_%s() {\n    case \"$1\" in\n        '') words=\"", name);
    put_first_words(set, out);
    put_first_words(&local_commands, out);
    buf_puts(out, " help\" ;;\n");
    put_cases(set, out);
    put_cases(&local_commands, out);
    buf_puts(out, "        *) words=\"\" ;;\n    esac\n}\n\n");
}

/* "config|check": behind these two words files are completed. */
static void put_files(const struct command_set *set, struct buf *out)
{
    for (size_t i = 0; i < set->n; i++)
        if (names_file(set->v[i].args))
            buf_printf(out, "        \"%s\") COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n",
                       set->v[i].name);
}

static const char body[] =
    "_sallyportctl() {\n"
    "    local cur=\"${COMP_WORDS[COMP_CWORD]}\" set=gateway words= first= second= i\n"
    "    COMPREPLY=()\n"
    "    case \"${COMP_WORDS[COMP_CWORD-1]}\" in\n"
    "        -c|--config|-s|--socket) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n"
    "    esac\n"
    "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
    "        case \"${COMP_WORDS[i]}\" in\n"
    "            -r|--router) set=router ;;\n"
    "            -c|--config|-s|--socket|-t|--timeout) i=$((i + 1)) ;;\n"
    "            -*) ;;\n"
    "            *) if [ -z \"$first\" ]; then first=\"${COMP_WORDS[i]}\"\n"
    "               elif [ -z \"$second\" ]; then second=\"${COMP_WORDS[i]}\"; fi ;;\n"
    "        esac\n"
    "    done\n"
    "    case \"$first $second\" in\n";

static const char tail[] = "    esac\n"
                           "    \"_sallyportctl_$set\" \"$first\"\n"
                           "    if [ -z \"$first\" ]; then\n"
                           "        words=\"$words --help --json --quiet --router --config "
                           "--socket --timeout --version\"\n"
                           "    fi\n"
                           "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
                           "}\n"
                           "complete -F _sallyportctl sallyportctl\n";

void complete_bash(const struct command_set *gateway, const struct command_set *router,
                   struct buf *out)
{
    buf_puts(out, "# bash completion for sallyportctl; made by 'sallyportctl completion bash'\n");
    put_set(gateway, "gateway", out);
    put_set(router, "router", out);
    buf_puts(out, body);
    put_files(gateway, out);
    put_files(&local_commands, out);
    buf_puts(out, tail);
}
