%% xcp/adapters/mod_sallyport.erl by itself, in a bare Erlang node: addresses, stanzas and sending
%% are ejabberd's own, its router and its modules' options are played as the cases say.
%% run(Node), where Node is a second one that is up, prints "passed N" at the end or crashes.
-module(adapter_test).
-export([run/1, find_routes/1, is_my_route/1, host_of_route/1, get_backend/0, route_error/2]).
-export([is_loaded/2, get_module_opt/3, cluster_backend/0]).
-export([mailbox/0, ended/0]).

%% ---- the modules of ejabberd that need a running server, in their names --------------------

%% Makes Name a module whose functions are those of this one.
pose(Name, Functions) ->
    Calls = [text("~s(~s) -> ~s:~s(~s).", [F, args(N), ?MODULE, F, args(N)])
             || {F, N} <- Functions],
    Exports = string:join([text("~s/~b", [F, N]) || {F, N} <- Functions], ","),
    Lines = [text("-module(~s).", [Name]), text("-export([~s]).", [Exports]) | Calls],
    {ok, Name, Binary} = compile:forms([form(Line) || Line <- Lines]),
    {module, Name} = code:load_binary(Name, "played", Binary).

text(Format, Words) -> lists:flatten(io_lib:format(Format, Words)).

form(Line) ->
    {ok, Tokens, _} = erl_scan:string(Line),
    {ok, Form} = erl_parse:parse_form(Tokens),
    Form.

args(N) -> string:join(["A" ++ integer_to_list(I) || I <- lists:seq(1, N)], ",").

get_backend() -> ?MODULE.
find_routes(Name) ->
    Streams = proplists:get_value(Name, get(routes), []),
    {ok, [{route, Name, <<"inside.lab">>, Stream, undefined} || Stream <- Streams]}.
is_my_route(Domain) -> lists:member(Domain, get(ours)).
host_of_route(Domain) -> proplists:get_value(Domain, get(owners), Domain).
is_loaded(Host, mod_sallyport) -> Host =/= <<"free.lab">>.
cluster_backend() -> mnesia.
get_module_opt(_Host, mod_sallyport, gateways) -> get(gateways).
route_error(Stanza, Error) ->
    put(errors, [{xmpp:get_id(Stanza), element(4, Error)} | get(errors)]),
    ok.

%% ---- the cases -------------------------------------------------------------------------------

run(Node) ->
    {ok, _} = application:ensure_all_started(xmpp),
    {module, _} = code:ensure_loaded(ejabberd_cluster_mnesia),
    pong = net_adm:ping(Node),
    put(node, Node),
    pose(ejabberd_router,
         [{get_backend, 0}, {is_my_route, 1}, {host_of_route, 1}, {route_error, 2}]),
    pose(gen_mod, [{is_loaded, 2}, {get_module_opt, 3}]),
    pose(ejabberd_option, [{cluster_backend, 0}]),
    logger:set_primary_config(level, none),
    put(ours, [<<"inside.lab">>, <<"rooms.inside.lab">>, <<"free.lab">>]),
    put(owners, [{<<"rooms.inside.lab">>, <<"inside.lab">>}]),
    put(gateways, [<<"edge1">>, <<"edge2">>]),
    Cases = [fun passed_on/0, fun dropped/0, fun nobody_connected/0, fun preference/0,
             fun dead_is_passed_over/0, fun all_dead/0, fun sharing/0, fun services/0, fun crash/0,
             fun other_nodes/0],
    [begin put(errors, []), put(routes, []), Case() end || Case <- Cases],
    io:format("passed ~b~n", [length(Cases)]).

passed_on() ->
    Local = message(<<"a@inside.lab/x">>, <<"b@rooms.inside.lab">>),
    Local = mod_sallyport:filter(Local),
    In = message(<<"j@raw.lab/x">>, <<"a@inside.lab">>),
    In = mod_sallyport:filter(In),
    Unguarded = message(<<"a@free.lab/x">>, <<"j@raw.lab">>),
    Unguarded = mod_sallyport:filter(Unguarded),
    [] = get(errors).

dropped() ->
    drop = mod_sallyport:filter(drop),
    drop = mod_sallyport:filter(message(<<"a@one.lab">>, <<"b@two.lab">>)),
    [] = get(errors).

nobody_connected() ->
    drop = mod_sallyport:filter(out(<<"a">>)),
    [{<<"a">>, 'remote-server-timeout'}] = get(errors).

preference() ->
    {One, Two} = {stream(), stream()},
    put(routes, [{<<"edge2">>, [Two]}, {<<"edge1">>, [One]}]),
    drop = mod_sallyport:filter(out(<<"a">>)),
    {[<<"a">>], []} = {got(One), got(Two)},
    [] = get(errors).

%% The routes still name it, the process is gone.
dead_is_passed_over() ->
    {One, Two} = {stream(), stream()},
    ended(One),
    put(routes, [{<<"edge1">>, [One]}, {<<"edge2">>, [undefined, Two]}]),
    drop = mod_sallyport:filter(out(<<"a">>)),
    [<<"a">>] = got(Two),
    Three = stream(),
    put(routes, [{<<"edge1">>, [One, Three]}]),
    [drop = mod_sallyport:filter(out(integer_to_binary(I), <<"u", I, "@inside.lab/x">>))
     || I <- lists:seq($a, $p)],
    16 = length(got(Three)),
    [] = get(errors).

all_dead() ->
    One = stream(),
    ended(One),
    put(routes, [{<<"edge1">>, [One]}]),
    drop = mod_sallyport:filter(out(<<"a">>)),
    [{<<"a">>, 'remote-server-timeout'}] = get(errors).

%% By the bare address, whatever the resource; both take part.
sharing() ->
    Streams = [stream(), stream()],
    put(routes, [{<<"edge1">>, Streams}]),
    [mod_sallyport:filter(out(<<I>>, <<"u", I, "@inside.lab/", R>>))
     || I <- lists:seq($a, $z), R <- "xyz"],
    [A, B] = [lists:usort(got(S)) || S <- Streams],
    true = A =/= [] andalso B =/= [],
    26 = length(A) + length(B).

services() ->
    One = stream(),
    put(routes, [{<<"edge1">>, [One]}]),
    drop = mod_sallyport:filter(out(<<"a">>, <<"room@rooms.inside.lab/nick">>)),
    [<<"a">>] = got(One).

%% Whatever breaks, the stanza does not get out of the hook.
crash() ->
    put(routes, [{<<"edge1">>, [stream()]}]),
    Gateways = put(gateways, broken),
    drop = mod_sallyport:filter(out(<<"a">>)),
    [{<<"a">>, 'internal-server-error'}] = get(errors),
    put(gateways, Gateways),
    put(errors, broken),
    drop = mod_sallyport:filter(out(<<"b">>)),
    drop = mod_sallyport:filter(rubbish).

%% Those here first; one elsewhere is asked whether it still lives.
other_nodes() ->
    Elsewhere = fun(F) -> rpc:call(get(node), erlang, spawn, [?MODULE, F, []]) end,
    Here = stream(),
    {There, Gone} = {Elsewhere(mailbox), Elsewhere(ended)},
    wait_gone(Gone),
    put(routes, [{<<"edge1">>, [There, Here, Gone]}]),
    [mod_sallyport:filter(out(<<I>>, <<"u", I, "@inside.lab/x">>)) || I <- "abcd"],
    4 = length(got(Here)),
    put(routes, [{<<"edge1">>, [Gone, There]}]),
    [mod_sallyport:filter(out(<<I>>, <<"u", I, "@inside.lab/x">>)) || I <- "abcd"],
    4 = length(got(There)),
    [] = get(errors).

wait_gone(Pid) ->
    Ref = monitor(process, Pid),
    receive {'DOWN', Ref, _, _, _} -> ok end.

%% ---- streams and stanzas ---------------------------------------------------------------------

stream() -> spawn_link(fun mailbox/0).

mailbox() ->
    receive
        {ask, From} ->
            From ! {self(), collect([])},
            mailbox();
        stop ->
            ok
    end.

collect(Ids) ->
    receive {route, Stanza} -> collect([xmpp:get_id(Stanza) | Ids])
    after 0 -> lists:reverse(Ids)
    end.

got(Stream) ->
    Stream ! {ask, self()},
    receive {Stream, Ids} -> Ids end.

ended() -> ok.

ended(Stream) ->
    Stream ! stop,
    wait_gone(Stream).

out(Id) -> out(Id, <<"a@inside.lab/x">>).
out(Id, From) -> xmpp:set_from_to(xmpp_message(Id), jid:decode(From), jid:decode(<<"j@raw.lab">>)).

message(From, To) -> xmpp:set_from_to(xmpp_message(<<"m">>), jid:decode(From), jid:decode(To)).

xmpp_message(Id) ->
    xmpp:decode({xmlel, <<"message">>, [{<<"id">>, Id}], []}, <<"jabber:client">>, []).
