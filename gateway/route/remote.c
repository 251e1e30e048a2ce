/* The walk of a remote over its targets, its pairs and questions on the stream, and what the owner
 * is to do next. What fails, and what that costs, is in remote_backoff.c. */
#include "gateway/route/remote_priv.h"

#include "core/base/mem.h"

enum { FRUITLESS_MAX = 3, RESETS_MAX = 3 };

#define TO(s) (1u << REMOTE_##s)
const machine_edges remote_edges[REMOTE_STATE_COUNT] = {
    [REMOTE_IDLE] = TO(RESOLVING),
    [REMOTE_RESOLVING] = TO(CONNECTING) | TO(BACKOFF) | TO(IDLE),
    [REMOTE_CONNECTING] = TO(CONNECTING) | TO(NEGOTIATING) | TO(BACKOFF) | TO(IDLE),
    [REMOTE_NEGOTIATING] = TO(CONNECTING) | TO(READY) | TO(BACKOFF) | TO(IDLE),
    [REMOTE_READY] = TO(CONNECTING) | TO(IDLE) | TO(BACKOFF),
    [REMOTE_BACKOFF] = TO(IDLE),
};
#undef TO

const char *remote_state_name(enum remote_state s)
{
    static const char *const names[] = {
#define X(id) #id,
        REMOTE_STATES(X)
#undef X
    };
    return names[s];
}

void remote_set_state(struct remote *r, enum remote_state to)
{
    if (machine_edge_ok(remote_edges, r->state, to))
        r->state = to;
}

struct remote *remote_new(struct str domain, const struct remote_settings *settings,
                          struct outq_limits *limits, const struct env *env)
{
    struct remote *r = mem_zalloc(sizeof *r);
    if (r == NULL)
        return NULL;
    r->domain = mem_strndup(domain);
    if (r->domain == NULL) {
        mem_free(r);
        return NULL;
    }
    r->settings = settings;
    r->limits = limits;
    r->env = env;
    r->failed_limits = (struct outq_limits){SIZE_MAX, SIZE_MAX, SIZE_MAX, 0, 0};
    outq_init(&r->failed, &r->failed_limits);
    return r;
}

static void free_pair(struct pair *p)
{
    list_remove(&p->node);
    outq_free(&p->queue);
    span_release(&p->why);
    mem_free(p->local);
    mem_free(p);
}

static void free_ask(struct ask *a)
{
    list_remove(&a->node);
    span_release(&a->text);
    mem_free(a->local);
    mem_free(a->stream_id);
    mem_free(a->key);
    mem_free(a);
}

void remote_free(struct remote *r)
{
    if (r == NULL)
        return;
    while (r->pairs.first != NULL)
        free_pair(CONTAINER_OF(r->pairs.first, struct pair, node));
    while (r->asks.first != NULL)
        free_ask(CONTAINER_OF(r->asks.first, struct ask, node));
    while (r->decided.first != NULL)
        free_ask(CONTAINER_OF(r->decided.first, struct ask, node));
    outq_free(&r->failed);
    span_release(&r->why);
    span_release(&r->handed);
    mem_free(r->domain);
    mem_free(r);
}

static struct pair *find_pair(const struct remote *r, struct str local)
{
    LIST_FOREACH (&r->pairs, n, next) {
        struct pair *p = CONTAINER_OF(n, struct pair, node);
        if (str_is(local, p->local))
            return p;
    }
    return NULL;
}

/* Makes room for another pair: the first one that nothing waits in and no penalty holds. */
static bool evict_pair(struct remote *r, uint64_t now)
{
    LIST_FOREACH (&r->pairs, n, next) {
        struct pair *p = CONTAINER_OF(n, struct pair, node);
        if (p->phase == PHASE_NONE && p->carrier == 0 && p->queue.items.first == NULL &&
            p->retry_at <= now) {
            free_pair(p);
            return true;
        }
    }
    return false;
}

static struct pair *get_pair(struct remote *r, struct str local, uint64_t now)
{
    struct pair *p = find_pair(r, local);
    if (p != NULL)
        return p;
    if (r->pairs.count >= r->settings->pairs_max && !evict_pair(r, now))
        return NULL;
    p = mem_zalloc(sizeof *p);
    if (p == NULL)
        return NULL;
    p->local = mem_strndup(local);
    if (p->local == NULL) {
        mem_free(p);
        return NULL;
    }
    outq_init(&p->queue, r->limits);
    list_append(&r->pairs, &p->node);
    return p;
}

/* ---- set-up ---------------------------------------------------------------------------------- */

/* For a stream that we dial. */
static bool something_waits(const struct remote *r)
{
    if (r->asks.first != NULL)
        return true;
    LIST_FOREACH (&r->pairs, n, next) {
        const struct pair *p = CONTAINER_OF(n, struct pair, node);
        if (p->carrier == 0 && p->queue.items.first != NULL)
            return true;
    }
    return false;
}

static void reset_stream_facts(struct remote *r)
{
    r->established = r->progressed = false;
    LIST_FOREACH (&r->pairs, n, next)
        CONTAINER_OF(n, struct pair, node)->phase = PHASE_NONE;
    LIST_FOREACH (&r->asks, n2, next2)
        CONTAINER_OF(n2, struct ask, node)->sent = false;
}

static void wake(struct remote *r, uint64_t now)
{
    if (r->state != REMOTE_IDLE || !something_waits(r))
        return;
    reset_stream_facts(r);
    remote_set_state(r, REMOTE_RESOLVING);
    r->todo = true;
    r->until = now + r->settings->setup_ms;
}

static void next_target(struct remote *r, uint64_t now)
{
    if (++r->target >= r->ntargets) {
        remote_back_off(r, r->reachable ? "remote-server-timeout" : "remote-server-not-found", now);
        return;
    }
    reset_stream_facts(r);
    remote_set_state(r, REMOTE_CONNECTING);
    r->todo = true;
}

void remote_resolved(struct remote *r, size_t ntargets, uint64_t now)
{
    if (r->state != REMOTE_RESOLVING)
        return;
    if (ntargets == 0) {
        remote_set_why(r, STR("the domain has no server to connect to"));
        remote_back_off(r, "remote-server-not-found", now);
        return;
    }
    r->ntargets = ntargets;
    r->target = 0;
    r->reachable = false;
    remote_set_state(r, REMOTE_CONNECTING);
    r->todo = true;
}

void remote_resolve_failed(struct remote *r, struct str why, uint64_t now)
{
    if (r->state != REMOTE_RESOLVING)
        return;
    remote_set_why(r, why);
    remote_back_off(r, "remote-server-not-found", now);
}

void remote_dial_failed(struct remote *r, struct str why, bool unresolved, uint64_t now)
{
    if (r->state != REMOTE_CONNECTING)
        return;
    r->reachable = r->reachable || !unresolved;
    remote_set_why(r, why);
    next_target(r, now);
}

void remote_connected(struct remote *r)
{
    r->reachable = true;
    if (r->state == REMOTE_CONNECTING)
        remote_set_state(r, REMOTE_NEGOTIATING);
}

void remote_stream_ready(struct remote *r)
{
    if (r->state == REMOTE_NEGOTIATING)
        remote_set_state(r, REMOTE_READY);
}

/* ---- stanzas --------------------------------------------------------------------------------- */

struct remote_refusal remote_stanza(struct remote *r, struct str local, struct str stanza,
                                    uint64_t now)
{
    remote_tick(r, now);
    bool carried = remote_carrier(r, local) != 0;
    if (r->state == REMOTE_BACKOFF && !carried)
        return (struct remote_refusal){r->penalty_condition, r->why.s};
    struct pair *p = get_pair(r, local, now);
    if (p != NULL && p->retry_at > now && !carried)
        return (struct remote_refusal){p->condition, p->why.s};
    if (p == NULL || !outq_push(&p->queue, stanza, now))
        return (struct remote_refusal){"resource-constraint",
                                       STR("the queue for this domain is full")};
    wake(r, now);
    return (struct remote_refusal){NULL, STR_NONE};
}

/* What waits in the pair fares like new stanzas. */
static void go_by_stream(struct remote *r, struct pair *p, uint64_t now)
{
    if (r->state == REMOTE_BACKOFF)
        remote_fail_pair(r, p, r->penalty_condition);
    else if (p->retry_at > now)
        remote_fail_pair(r, p, p->condition);
    wake(r, now);
}

bool remote_unsent(struct remote *r, struct str local, struct str stanza, uint64_t now)
{
    struct pair *p = get_pair(r, local, now);
    if (p == NULL)
        return false;
    /* Not younger than what is behind it: the head of the queue is what its age is read from. */
    const struct list_node *head = p->queue.items.first;
    uint64_t since = head ? CONTAINER_OF(head, struct outq_item, node)->since : now;
    if (!outq_unshift(&p->queue, stanza, since))
        return false;
    if (p->carrier == 0)
        go_by_stream(r, p, now); /* the one that gives it back may have been given up before */
    return true;
}

/* ---- carriers -------------------------------------------------------------------------------- */

bool remote_carry(struct remote *r, struct str local, uint64_t carrier, uint64_t now)
{
    struct pair *p = get_pair(r, local, now);
    if (p == NULL || p->carrier != 0 || p->phase != PHASE_NONE || p->queue.items.first != NULL)
        return false;
    p->carrier = carrier;
    return true;
}

void remote_uncarry(struct remote *r, struct str local, uint64_t carrier, uint64_t now)
{
    struct pair *p = find_pair(r, local);
    if (p == NULL || p->carrier != carrier)
        return;
    p->carrier = 0;
    go_by_stream(r, p, now);
}

uint64_t remote_carrier(const struct remote *r, struct str local)
{
    const struct pair *p = find_pair(r, local);
    return p != NULL ? p->carrier : 0;
}

void remote_sent(struct remote *r)
{
    r->progressed = true;
    r->fruitless = r->resets = 0;
}

bool remote_may_send(const struct remote *r, struct str local)
{
    const struct pair *p = find_pair(r, local);
    if (p == NULL || p->queue.items.first != NULL)
        return false;
    return p->carrier != 0 || (p->phase == PHASE_OPEN && r->state == REMOTE_READY && !r->close);
}

/* ---- questions ------------------------------------------------------------------------------- */

bool remote_ask(struct remote *r, const struct db_request *q, uint64_t origin, uint32_t ticket,
                uint64_t within_ms, uint64_t now)
{
    remote_tick(r, now);
    struct ask *a = mem_zalloc(sizeof *a);
    if (a == NULL)
        return false;
    a->local = mem_strndup(q->local);
    a->stream_id = mem_strndup(q->stream_id);
    a->key = mem_strndup(q->key);
    a->origin = origin;
    a->ticket = ticket;
    a->due = now + within_ms;
    bool full = r->asks.count >= r->settings->asks_max || !a->local || !a->stream_id || !a->key;
    list_append(&r->asks, &a->node);
    if (full)
        remote_decide(r, a, VERDICT_BUSY);
    else if (r->state == REMOTE_BACKOFF)
        remote_decide(r, a, VERDICT_NOT_FOUND);
    else
        wake(r, now);
    return true;
}

void remote_answered(struct remote *r, const struct db_request *q, enum verdict verdict,
                     struct str text, uint64_t now)
{
    (void)now;
    LIST_FOREACH (&r->asks, n, next) {
        struct ask *a = CONTAINER_OF(n, struct ask, node);
        if (!a->sent || !str_is(q->local, a->local) || !str_is(q->stream_id, a->stream_id))
            continue;
        r->established = r->progressed = true; /* an answer is what the stream was for */
        r->fruitless = r->resets = 0;
        remote_forgive(r);
        if (text.p != NULL)
            remote_set_why(r, text);
        remote_decide(r, a, verdict);
        return;
    }
}

/* ---- the stream ------------------------------------------------------------------------------ */

void remote_pair_result(struct remote *r, struct str local, enum pair_result result,
                        struct str text, uint64_t now)
{
    struct pair *p = r->state == REMOTE_READY ? find_pair(r, local) : NULL;
    if (p == NULL || p->phase != PHASE_ASKED)
        return;
    r->established = true;
    switch (result) {
    case PAIR_VALID:
        p->phase = PHASE_OPEN;
        p->failures = 0;
        p->retry_at = p->forget_at = 0;
        remote_forgive(r);
        break;
    case PAIR_INVALID:
        remote_refuse_pair(r, p, "internal-server-error", text, now);
        r->close = true; /* XEP-0220 2.1.1: the peer closes this stream too */
        break;
    case PAIR_ERROR:
    case PAIR_ALONE: /* whoever can open another stream takes the pair away before */
        remote_refuse_pair(r, p, "remote-server-timeout", text, now);
        break;
    }
}

static void lost_stream(struct remote *r, struct str why, uint64_t now)
{
    remote_set_why(r, why);
    LIST_FOREACH (&r->asks, n, next) {
        struct ask *a = CONTAINER_OF(n, struct ask, node);
        if (a->sent)
            remote_decide(r, a, VERDICT_TIMEOUT);
    }
    bool fruitless = !r->progressed && something_waits(r) && ++r->fruitless >= FRUITLESS_MAX;
    if (fruitless) {
        remote_back_off(r, "remote-server-timeout", now);
        return;
    }
    remote_set_state(r, REMOTE_IDLE);
    reset_stream_facts(r);
    wake(r, now);
}

void remote_stream_ended(struct remote *r, struct str why, uint64_t now)
{
    r->close = false;
    if (r->state == REMOTE_NEGOTIATING) {
        remote_set_why(r, why);
        next_target(r, now);
    } else if (r->state == REMOTE_READY && r->established) {
        lost_stream(r, why, now);
    } else if (r->state == REMOTE_READY) {
        /* It was ready and then served nothing: no better than a target that refuses. */
        remote_set_why(r, why);
        LIST_FOREACH (&r->asks, n, next) {
            struct ask *a = CONTAINER_OF(n, struct ask, node);
            if (a->sent)
                remote_decide(r, a, VERDICT_TIMEOUT);
        }
        r->until = now + r->settings->setup_ms;
        if (something_waits(r)) {
            next_target(r, now);
        } else {
            remote_set_state(r, REMOTE_IDLE);
            reset_stream_facts(r);
        }
    }
}

void remote_stream_reset(struct remote *r, struct str why, uint64_t now)
{
    bool ready = r->state == REMOTE_READY;
    if ((!ready && r->state != REMOTE_NEGOTIATING) || !something_waits(r) ||
        r->resets++ >= RESETS_MAX) {
        remote_stream_ended(r, why, now);
        return;
    }
    r->close = false;
    remote_set_why(r, why);
    reset_stream_facts(r);
    remote_set_state(r, REMOTE_CONNECTING);
    r->todo = true;
    if (ready)
        r->until = now + r->settings->setup_ms;
}

void remote_again(struct remote *r)
{
    if (r->state == REMOTE_RESOLVING || r->state == REMOTE_CONNECTING)
        r->todo = true;
}

void remote_fail_local(struct remote *r, bool (*gone)(void *arg, struct str local), void *arg,
                       const char *condition, struct str why)
{
    LIST_FOREACH (&r->pairs, n, next) {
        struct pair *p = CONTAINER_OF(n, struct pair, node);
        if (p->queue.items.first == NULL || !gone(arg, str_c(p->local)))
            continue;
        remote_set_why(r, why);
        remote_fail_pair(r, p, condition);
    }
}

bool remote_take(struct remote *r, struct str local, struct span *out)
{
    struct pair *p = find_pair(r, local);
    struct outq_item *it = p != NULL ? outq_pop(&p->queue) : NULL;
    if (p != NULL)
        p->phase = PHASE_NONE;
    if (it == NULL)
        return false;
    *out = span_retain(it->stanza);
    outq_item_free(it);
    return true;
}

void remote_fail_all(struct remote *r, const char *condition, struct str why, uint64_t now)
{
    (void)now;
    remote_set_why(r, why);
    LIST_FOREACH (&r->pairs, n, next)
        remote_fail_pair(r, CONTAINER_OF(n, struct pair, node), condition);
    remote_decide_all(r, VERDICT_NOT_FOUND);
    if (r->state == REMOTE_RESOLVING || r->state == REMOTE_CONNECTING ||
        r->state == REMOTE_NEGOTIATING) {
        remote_set_state(r, REMOTE_IDLE);
        r->todo = false;
        r->close = true;
    }
}

/* ---- time ------------------------------------------------------------------------------------ */

static bool in_setup(const struct remote *r)
{
    return r->state == REMOTE_RESOLVING || r->state == REMOTE_CONNECTING ||
           r->state == REMOTE_NEGOTIATING;
}

void remote_tick(struct remote *r, uint64_t now)
{
    remote_forget(r, now);
    remote_expire(r, now);
    if (r->state == REMOTE_BACKOFF && r->until <= now) {
        remote_set_state(r, REMOTE_IDLE);
        wake(r, now);
    } else if (in_setup(r) && r->until <= now) {
        remote_set_why(r, STR("no stream could be set up in time"));
        r->close = true;
        remote_back_off(r, "remote-server-timeout", now);
    } else if (in_setup(r) && !something_waits(r)) {
        r->close = true;
        r->todo = false;
        remote_set_state(r, REMOTE_IDLE);
    }
}

void remote_retry(struct remote *r, uint64_t now)
{
    if (r->state != REMOTE_BACKOFF)
        return;
    remote_forgive(r);
    remote_set_state(r, REMOTE_IDLE);
    wake(r, now);
}

bool remote_due(const struct remote *r, uint64_t *due)
{
    uint64_t best = UINT64_MAX;
    if (r->state == REMOTE_BACKOFF || in_setup(r))
        best = r->until;
    if (r->forget_at != 0 && r->forget_at < best)
        best = r->forget_at;
    LIST_FOREACH (&r->asks, n, next) {
        const struct ask *a = CONTAINER_OF(n, struct ask, node);
        best = a->due < best ? a->due : best;
    }
    LIST_FOREACH (&r->pairs, n2, next2) {
        const struct pair *p = CONTAINER_OF(n2, struct pair, node);
        if (p->forget_at != 0 && p->forget_at < best)
            best = p->forget_at;
        if (p->queue.items.first == NULL)
            continue;
        uint64_t end = CONTAINER_OF(p->queue.items.first, struct outq_item, node)->since +
                       r->settings->queue_ms;
        best = end < best ? end : best;
    }
    *due = best;
    return best != UINT64_MAX;
}

/* ---- outputs --------------------------------------------------------------------------------- */

static bool next_ended(struct remote *r, struct remote_act *out)
{
    struct outq_item *it = outq_pop(&r->failed);
    if (it != NULL) {
        out->what = REMOTE_DO_BOUNCE;
        out->stanza = span_retain(it->stanza);
        out->condition = it->condition;
        span_release(&r->handed);
        r->handed = span_retain(it->text);
        out->text = it->text.s;
        outq_item_free(it);
        return true;
    }
    if (r->decided.first != NULL) {
        struct ask *a = CONTAINER_OF(r->decided.first, struct ask, node);
        out->what = REMOTE_DO_VERDICT;
        out->origin = a->origin;
        out->ticket = a->ticket;
        out->verdict = a->verdict;
        span_release(&r->handed);
        r->handed = span_retain(a->text);
        out->text = a->text.s;
        free_ask(a);
        return true;
    }
    return false;
}

static bool next_ask(struct remote *r, struct remote_act *out)
{
    LIST_FOREACH (&r->asks, n, next) {
        struct ask *a = CONTAINER_OF(n, struct ask, node);
        if (a->sent)
            continue;
        a->sent = true;
        out->what = REMOTE_DO_WANT_VERIFY;
        out->request = (struct db_request){str_c(a->local), str_c(r->domain), str_c(a->stream_id),
                                           str_c(a->key)};
        return true;
    }
    return false;
}

static void send_first(struct pair *p, struct remote_act *out)
{
    struct outq_item *it = outq_pop(&p->queue);
    out->what = REMOTE_DO_SEND;
    out->local = str_c(p->local);
    out->carrier = p->carrier;
    out->stanza = span_retain(it->stanza);
    outq_item_free(it);
}

static bool next_carried(struct remote *r, const struct remote_room *room, struct remote_act *out)
{
    LIST_FOREACH (&r->pairs, n, next) {
        struct pair *p = CONTAINER_OF(n, struct pair, node);
        if (p->carrier == 0 || p->queue.items.first == NULL || room->carrier == NULL ||
            !room->carrier(room->arg, p->carrier, str_c(p->local)))
            continue;
        send_first(p, out);
        return true;
    }
    return false;
}

static bool next_of_pair(struct pair *p, uint64_t now, bool writable, struct remote_act *out)
{
    if (p->queue.items.first == NULL || p->carrier != 0)
        return false;
    if (p->phase == PHASE_NONE && p->retry_at <= now) {
        p->phase = PHASE_ASKED;
        out->what = REMOTE_DO_WANT_PAIR;
        out->local = str_c(p->local);
        return true;
    }
    if (p->phase != PHASE_OPEN || !writable)
        return false;
    send_first(p, out);
    return true;
}

bool remote_next(struct remote *r, uint64_t now, const struct remote_room *room,
                 struct remote_act *out)
{
    memset(out, 0, sizeof *out);
    if (next_ended(r, out) || next_carried(r, room, out))
        return true;
    if (r->close) {
        r->close = false;
        out->what = REMOTE_DO_CLOSE;
        if (r->state == REMOTE_READY) { /* its end is not reported any more */
            r->progressed = true;
            lost_stream(r, STR("the remote server did not accept us"), now);
        }
        return true;
    }
    if (r->todo) {
        r->todo = false;
        out->what = r->state == REMOTE_RESOLVING ? REMOTE_DO_RESOLVE : REMOTE_DO_DIAL;
        out->target = r->target;
        return true;
    }
    if (r->state != REMOTE_READY)
        return false;
    if (next_ask(r, out))
        return true;
    LIST_FOREACH (&r->pairs, n, next)
        if (next_of_pair(CONTAINER_OF(n, struct pair, node), now, room->stream, out))
            return true;
    return false;
}

enum remote_state remote_state_of(const struct remote *r)
{
    return r->state;
}

size_t remote_queued(const struct remote *r)
{
    size_t n = 0;
    LIST_FOREACH (&r->pairs, p, next)
        n += CONTAINER_OF(p, struct pair, node)->queue.items.count;
    return n;
}

bool remote_disposable(const struct remote *r, uint64_t now)
{
    if (r->state != REMOTE_IDLE || r->asks.first || r->decided.first || r->failed.items.first ||
        r->close || r->forget_at != 0)
        return false;
    LIST_FOREACH (&r->pairs, n, next) {
        const struct pair *p = CONTAINER_OF(n, struct pair, node);
        if (p->queue.items.first != NULL || p->carrier != 0 || p->forget_at > now)
            return false;
    }
    return true;
}
