-- Sends everything that Prosody would federate itself to a gateway instead.
--
-- A gateway is an external component (XEP-0114) of this Prosody. Prosody raises `route/remote` for
-- a stanza whose domain it does not serve; mod_s2s answers it at negative priorities. This module
-- answers first, puts the stanza into the stream of a gateway that is connected, and never lets it
-- fall through, so that nothing leaves by another way. Without a gateway the sender gets an error.
--
-- It must be global: an ordinary module of the global list is not loaded on components, and what a
-- chat room sends to its guests from outside would then bypass the gateway.
--
-- Option: federation_gateways, names of the gateways' components in order of preference.

module:set_global();

local error_reply = require "util.stanza".error_reply;
local jid_host = require "util.jid".host;

local hosts = prosody.hosts;
local gateways = module:get_option_array("federation_gateways", {});
local BEFORE_S2S = 100;

if #gateways == 0 then
	module:log("error", "federation_gateways is empty: no stanza can leave this server");
end

-- The stream of the first gateway that is connected. mod_component keeps it in its environment, as
-- `session` on the component's host: false while nobody is connected.
local function stream_out()
	for _, name in ipairs(gateways) do
		local host = hosts[name];
		local component = host and host.modules.component;
		local session = component and component.session;
		if session and session.type == "component" then
			return session;
		end
	end
	return nil;
end

-- Errors and results are never answered (RFC 6120, 8.3.1); nor are senders that are not ours: the
-- stanza came from the gateway, and an answer would go straight back into it.
local function refuse(stanza, origin)
	local kind = stanza.attr.type;
	local ours = stanza.attr.from and hosts[jid_host(stanza.attr.from)];
	if ours and origin and origin.send and kind ~= "error" and kind ~= "result" then
		origin.send(error_reply(stanza, "wait", "remote-server-timeout",
			"The federation gateway is not connected"));
	end
end

local function route_out(event)
	local stanza, stream = event.stanza, stream_out();
	if not stream then
		module:log("warn", "no gateway is connected, refused a stanza for %s", stanza.attr.to);
		refuse(stanza, event.origin);
	elseif not stream.send(stanza) then
		refuse(stanza, event.origin);
	end
	return true;
end

local function attach(name)
	module:hook_object_event(hosts[name].events, "route/remote", route_out, BEFORE_S2S);
end

module:hook_global("host-activated", attach);
for name in pairs(hosts) do
	attach(name);
end
