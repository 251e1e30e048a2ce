/* Namespace names and other strings of the protocols. */
#ifndef CORE_XML_NS_H
#define CORE_XML_NS_H

#define NS_STREAM       "http://etherx.jabber.org/streams"
#define NS_SERVER       "jabber:server"
#define NS_CLIENT       "jabber:client"
#define NS_COMPONENT    "jabber:component:accept"
#define NS_JABBERD2     "http://jabberd.jabberstudio.org/ns/component/1.0"
#define NS_DIALBACK     "jabber:server:dialback"
#define NS_FEATURE_DB   "urn:xmpp:features:dialback"
#define NS_TLS          "urn:ietf:params:xml:ns:xmpp-tls"
#define NS_SASL         "urn:ietf:params:xml:ns:xmpp-sasl"
#define NS_STREAM_ERROR "urn:ietf:params:xml:ns:xmpp-streams"
#define NS_STANZA_ERROR "urn:ietf:params:xml:ns:xmpp-stanzas"
#define NS_XML          "http://www.w3.org/XML/1998/namespace"
#define NS_TIME         "urn:xmpp:time"
#define NS_LIMITS       "urn:xmpp:stream-limits:0"
#define NS_BIDI         "urn:xmpp:bidi"
#define NS_FEATURE_BIDI "urn:xmpp:features:bidi"
#define NS_PING         "urn:xmpp:ping"
#define NS_DISCO_INFO   "http://jabber.org/protocol/disco#info"

#endif
