%% Starts ejabberd, registers its user, and then opens a port that says so.
{ok, _} = application:ensure_all_started(ejabberd).
ok = ejabberd_auth:try_register(<<"moonwire">>, <<"localhost">>, <<"correct horse battery staple">>).
spawn(fun() ->
    {ok, _} = gen_tcp:listen({{registered}}, [{ip, {127, 0, 0, 1}}]),
    receive stop -> ok end
end).
