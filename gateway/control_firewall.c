/* The firewall sheet. */
#include "config/flows.h"
#include "gateway/control.h"

static void put_flow(void *arg, const char *event, const struct kv *kv, size_t n)
{
    (void)event;
    control_row(arg, kv, n);
}

void gateway_do_FIREWALL(struct control_call *call)
{
    const struct gateway_control *g = call->arg;
    struct buf dns = BUF_INIT(FLOWS_RESOLV_MAX);
    flows_resolv_conf(&dns);
    control_rows(call, "flows");
    flows_list(g->w->cfg, buf_view(&dns), &(struct kv_sink){put_flow, call});
    control_rows_end(call);
    buf_free(&dns);
}
