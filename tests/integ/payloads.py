"""What must arrive as it was sent: children of a message, each a different way to write XML."""

PAYLOADS = {
    "foreign namespaces":
        "<body>x</body><x xmlns='urn:example:a' k='v'><y xmlns='urn:example:b'/>t<z/></x>",
    "prefixes declared inside":
        "<body>x</body><p:x xmlns:p='urn:example:p' p:a='1' b='2'><p:y/>"
        "<q:z xmlns:q='urn:example:q' q:a=\"3\">&lt;</q:z></p:x>",
    "CDATA": "<body><![CDATA[a <b> && c ]] > d]]></body>",
    "entities": "<body>&lt;b&gt; &amp;amp; &quot;q&quot; &apos;a&apos;</body>"
                "<x xmlns='urn:example:a' k='&lt;&amp;&quot;&apos;&gt;'/>",
    "character references": "<body>&#65;&#x42;&#xE4;&#x1F511;|&#9;|&#10;|</body>"
                            "<x xmlns='urn:example:a' k='a&#9;b&#10;c'/>",
    "emoji": "<body>\U0001f469\u200d\U0001f680 \U0001f1e9\U0001f1ea \u2764\ufe0f \u0627\u0644"
             "</body>",
    "xml:lang": "<body xml:lang='de'>Guten Tag</body><body xml:lang='fr'>Bonjour</body>",
    "white space": "<body>  two  spaces\n\tnew line </body><x xmlns='urn:example:a'> <y/> </x>",
    "depth": "<body>x</body><x xmlns='urn:example:a'>" + "<d>" * 30 + "end" + "</d>" * 30 + "</x>",
}
# On the stanza itself; the name is that of a payload.
ON_STANZA = {"xml:lang": " xml:lang='it'"}
# What a gateway must not have to write anew: it forwards these very bytes.
PLAIN = [name for name in PAYLOADS if name != "CDATA"]
BIG = 200 * 1024


def big_body():
    """200 KiB in which a lost or doubled piece is seen."""
    return "".join(f"{i:07d}\n" for i in range(BIG // 8))
