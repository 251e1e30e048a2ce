-- everything that is looked at
modules_enabled = { "tls"; "dialback", "s2s_bidi"; "s2s_whitelist"; "s2s_blacklist"; --[[ "gone" ]] [==[long]==] }
modules_disabled = { }
s2s_secure_auth = true
s2s_require_encryption = false;
s2s_insecure_domains = { "old.example", ["set.example"] = true }
s2s_secure_domains = { 'b\195\188cher.example', "\x" }
s2s_whitelist = { "good.example" }
s2s_blacklist = { "bad.example" }
s2s_connect_overrides = { ["r1.example"] = "192.0.2.7:5270", ["r2.example"] = { "2001:db8::1", 5271 } }
s2s_ports = { 5269, 15269 }
s2s_interfaces = { "*", "::", "192.0.2.1", "no address" }
component_ports = { 5347 }
component_interfaces = { "10.0.0.5" }
dialback_secret = "not written"
s2s_timeout = 90
s2s_stanza_size_limit = 1024*512
limits = { s2sin = { rate = "30kb/s" } }
local function f() return { x = 1 } end
if os.getenv("X") then
  admins = { os.getenv("X") }
end
certificates = "certs"
VirtualHost "alpha.example"
  ssl = { certificate = "/etc/a.crt", key = "/etc/a.key" }
  s2s_secure_auth = false
VirtualHost("off.example") enabled = false
Component "rooms.alpha.example" "muc"
Component "gateway.alpha.example"
  component_secret = "x"
Include "conf.d/*.lua"
