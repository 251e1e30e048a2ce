%% Sends everything that ejabberd would federate itself to a gateway instead.
%%
%% A gateway is an external component (XEP-0114) of this ejabberd. ejabberd looks a stanza's
%% destination up among its routes (its own hosts, their services, the components) and gives what it
%% finds no route for to its S2S. The hook `filter_packet` sees every stanza before that. Here:
%%
%%   - a destination with a route: not ours, passed on;
%%   - no route to the destination, but to the sender: somebody of ours writes to another domain.
%%     The stanza goes into the stream of a gateway, and no further;
%%   - no route to either: it came from a gateway, for somebody who is not here. Dropped, because
%%     sending it back would make this server a relay.
%%
%% Which gateway: the names of the option in their order. Under one name there may be several
%% streams, since ejabberd lets components of the same name join side by side, on each node of a
%% cluster. Those of the sender's node come first; among equals the hash of the sender's bare
%% address decides, so that what one user sends stays in order. A stream whose process has ended, or
%% whose node cannot be reached, is passed over for the next. Without any the sender gets an error.
%%
%% It fails closed. ejabberd carries on with the stanza when a hook crashes, so nothing may get out
%% of this one: whatever goes wrong ends in an error to the sender, or in silence where no answer is
%% allowed. The second bolt is `s2s_access: none`.
%%
%% It runs after the other filters, so that it decides on what they have left of the stanza.
%%
%% Option: gateways, names of the gateways' components in order of preference. It may differ from
%% host to host (append_host_config); a host without the module keeps its own S2S.
%%
%% No header files are included: where they lie differs between packages of ejabberd.

-module(mod_sallyport).
-behaviour(gen_mod).

-export([start/2, stop/1, reload/3, depends/2, mod_opt_type/1, mod_options/1, mod_doc/0]).
-export([filter/1]).

-define(AFTER_THE_OTHERS, 1000).
-define(ASK_MS, 1000).

start(_Host, _Opts) ->
    ejabberd_hooks:add(filter_packet, ?MODULE, filter, ?AFTER_THE_OTHERS).

%% The hook is one for all hosts: the last one takes it away.
stop(Host) ->
    case gen_mod:is_loaded_elsewhere(Host, ?MODULE) of
        true -> ok;
        false -> ejabberd_hooks:delete(filter_packet, ?MODULE, filter, ?AFTER_THE_OTHERS)
    end.

%% Options are read where they are used.
reload(_Host, _New, _Old) -> ok.

depends(_Host, _Opts) -> [].

mod_opt_type(gateways) -> econf:list_or_single(econf:domain(), [unique]).

%% An option without a default must be given.
mod_options(_Host) -> [gateways].

mod_doc() ->
    #{desc =>
          <<"Gives every stanza for a domain that this server has no route to into the hands of a "
            "federation gateway, which has joined as an external component. Set "
            "'s2s_access: none' beside it.">>,
      opts =>
          [{gateways,
            #{value => <<"[Component, ...]">>,
              desc => <<"The names under which gateways join, in order of preference. Streams of "
                        "the same name share the senders. This option is mandatory.">>}}],
      example =>
          ["listen:",
           "  -",
           "    port: 7400",
           "    ip: \"10.0.0.5\"",
           "    module: ejabberd_service",
           "    check_from: false",
           "    hosts:",
           "      edge.example.com: {password: \"the link's secret\"}",
           "s2s_access: none",
           "modules:",
           "  mod_sallyport:",
           "    gateways: edge.example.com"]}.

%% ---- the hook --------------------------------------------------------------------------------

filter(drop) ->
    drop;
filter(Stanza) ->
    try
        decide(Stanza)
    catch
        Class:Reason:Stack ->
            complain(Class, Reason, Stack),
            refuse(Stanza, fun xmpp:err_internal_server_error/2,
                   <<"The way to the federation gateway is broken">>)
    end.

decide(Stanza) ->
    {_, To, _} = jid:tolower(xmpp:get_to(Stanza)),
    {User, From, _} = jid:tolower(xmpp:get_from(Stanza)),
    case ejabberd_router:is_my_route(To) of
        true ->
            Stanza;
        false ->
            case owner(From) of
                nobody -> drop;
                unguarded -> Stanza;
                Host -> leave(Stanza, candidates(Host, {User, From}))
            end
    end.

%% The host of ours that a sending domain belongs to, itself or as the host of one of its services.
owner(Domain) ->
    case ejabberd_router:is_my_route(Domain) of
        false ->
            nobody;
        true ->
            Host = ejabberd_router:host_of_route(Domain),
            case gen_mod:is_loaded(Host, ?MODULE) of
                true -> Host;
                false -> unguarded
            end
    end.

leave(Stanza, []) ->
    refuse(Stanza, fun xmpp:err_remote_server_timeout/2,
           <<"The federation gateway is not connected">>);
leave(Stanza, [Stream | Others]) ->
    case alive(Stream) andalso ejabberd_cluster:send(Stream, {route, Stanza}) of
        false -> leave(Stanza, Others);
        _ -> drop
    end.

%% Whether a stream still has its process. On this node `send` looks itself. The end of one
%% elsewhere may not be known here yet, so its node is asked: who has no stream on his own node
%% waits for that.
alive(Stream) ->
    Node = node(Stream),
    Node =:= node() orelse
        (lists:member(Node, nodes()) andalso
         rpc:call(Node, erlang, is_process_alive, [Stream], ?ASK_MS) =:= true).

%% ---- the streams -----------------------------------------------------------------------------

%% All streams of all gateways, the best first.
candidates(Host, Sender) ->
    Names = gen_mod:get_module_opt(Host, ?MODULE, gateways),
    lists:append([by_distance(streams(Name), Sender) || Name <- Names]).

%% The router has a public question for whether there is a route, none for where it leads.
streams(Name) ->
    {ok, Routes} = (ejabberd_router:get_backend()):find_routes(Name),
    lists:sort([Pid || {route, _Name, _Host, Pid, _Hint} <- Routes, is_pid(Pid)]).

by_distance(Streams, Sender) ->
    {Here, Elsewhere} = lists:partition(fun(Pid) -> node(Pid) =:= node() end, Streams),
    turned(Here, Sender) ++ turned(Elsewhere, Sender).

%% The list from the sender's place on, then the rest from its beginning.
turned([], _Sender) ->
    [];
turned(Streams, Sender) ->
    {Before, From} = lists:split(erlang:phash2(Sender, length(Streams)), Streams),
    From ++ Before.

%% ---- what cannot leave -----------------------------------------------------------------------

%% Answers the sender and drops the stanza. route_error answers neither errors nor results.
refuse(Stanza, Error, Text) ->
    try
        ejabberd_router:route_error(Stanza, Error(Text, xmpp:get_lang(Stanza)))
    catch
        Class:Reason:Stack -> complain(Class, Reason, Stack)
    end,
    drop.

%% Only names of functions: their arguments may be somebody's words.
complain(Class, Reason, Stack) ->
    logger:error("~s: a stanza could not leave: ~p:~p in ~p",
                 [?MODULE, Class, Reason, [{M, F} || {M, F, _, _} <- Stack]]).
