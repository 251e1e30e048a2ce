"""Certificates of every kind, made with the commands that an operator would use, and the hashes of
their keys, found without a line of the programs under test."""
import hashlib
import ssl
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

from labnet import LabError, tool

LIFE = 90  # days; long enough for no alarm about the end
EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
CA_EXTENSIONS = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n"


class Identity:
    """A certificate and its key; `store` makes a file that holds this and other certificates."""

    def __init__(self, cert, key):
        self.cert, self.key = cert, key

    def settings(self):
        return {"certificate": self.cert, "key": self.key}

    def key_hash(self, kind="sha256"):
        """Of the public key in DER form, as hexadecimal digits."""
        public = run("x509", "-in", self.cert, "-pubkey", "-noout")
        return hashlib.new(kind, run("pkey", "-pubin", "-outform", "der", stdin=public)).hexdigest()

    def date(self, which):
        """The "startdate" or "enddate" as the day of an operator's calendar, "2026-01-02"."""
        text = run("x509", "-in", self.cert, "-noout", f"-{which}").decode()
        return f"{datetime.strptime(text.split('=')[1].strip(), '%b %d %H:%M:%S %Y %Z'):%Y-%m-%d}"

    def context(self, server=True, trust=None):
        """For a peer made of Python. Whoever is at the other end is believed, unless `trust` names
        a file of certificates that has to vouch for it."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
        made.set_ciphers("DEFAULT@SECLEVEL=0")  # it shows weak keys too
        if trust:
            made.load_verify_locations(trust)
            made.verify_mode = ssl.CERT_REQUIRED
        made.load_cert_chain(self.cert, self.key)
        return made


def run(*args, stdin=b""):
    done = subprocess.run([tool("openssl"), *map(str, args)], input=stdin, capture_output=True)
    if done.returncode != 0:
        raise LabError(f"openssl {args[0]}: {done.stderr.decode()}")
    return done.stdout


# ---- names that are more than text ---------------------------------------------------------------

def srv_name(domain):
    """RFC 4985."""
    return f"otherName:1.3.6.1.5.5.7.8.7;IA5STRING:_xmpp-server.{domain}"


def xmpp_addr(domain):
    """RFC 6120 13.7.1.4."""
    return f"otherName:1.3.6.1.5.5.7.8.5;UTF8:{domain}"


def _der(tag, body):
    """At most 255 bytes."""
    size = bytes([len(body)]) if len(body) < 128 else bytes([0x81, len(body)])
    return bytes([tag]) + size + body


def raw_dns_names(*names):
    """dNSNames of any bytes."""
    return "DER:" + _der(0x30, b"".join(_der(0x82, n) for n in names)).hex()


# ---- authorities ---------------------------------------------------------------------------------

class Pki:
    """Each name is made once and kept in `directory`."""

    def __init__(self, directory):
        self.dir = Path(directory)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.made = {}

    def _paths(self, name):
        return Identity(self.dir / f"{name}.pem", self.dir / f"{name}.key")

    def root(self, name="root"):
        if name not in self.made:
            i = self.made[name] = self._paths(name)
            run("req", "-x509", *EC, "-keyout", i.key, "-out", i.cert, "-days", 365,
                "-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        return self.made[name]

    def self_signed(self, name, domain, san=None):
        if name not in self.made:
            i = self.made[name] = self._paths(name)
            run("req", "-x509", *EC, "-days", LIFE, "-subj", f"/CN={domain}",
                "-addext", f"subjectAltName={san or 'DNS:' + domain}",
                "-keyout", i.key, "-out", i.cert)
        return self.made[name]

    def signed(self, name, domain, root="root", days=LIFE):
        """days=-1: expired yesterday."""
        return self.issue(name, f"DNS:{domain}", root=root, cn=domain,
                          days=(min(days, 0) - 31, days))

    def intermediate(self, name, root="root"):
        return self.issue(name, None, root=root, extensions=CA_EXTENSIONS)

    def issue(self, name, san, *, root="root", cn=None, days=(-1, LIFE), key=EC, use=None,
              extensions="basicConstraints=critical,CA:FALSE\n", send=()):
        """A certificate for the names `san`, None for none. days: from when to when, from now on.
        use: its extendedKeyUsage. send: names of authorities that are shown with it."""
        if name not in self.made:
            i = self.made[name] = self._paths(name)
            request = self.dir / f"{name}.csr"
            run("req", "-new", *key, "-subj", f"/CN={cn or name}", "-keyout", i.key,
                "-out", request)
            extensions += f"subjectAltName={san}\n" if san else ""
            extensions += f"extendedKeyUsage={use}\n" if use else ""
            self._sign(root, name, request, days, extensions)
            with open(i.cert, "ab") as f:
                f.writelines(self.made[s].cert.read_bytes() for s in send)
        return self.made[name]

    def _authority(self, root):
        """The options of `openssl ca` for this authority, whose books are made when needed."""
        i, books, conf = self.root(root), self.dir / f"{root}.books", self.dir / f"{root}.cnf"
        if not conf.exists():
            books.write_text("")
            copies = self.dir / f"{root}.copies"
            copies.mkdir()
            conf.write_text(
                "[ca]\ndefault_ca=d\n[d]\n"
                f"database={books}\nnew_certs_dir={copies}\nrand_serial=yes\nunique_subject=no\n"
                "default_md=sha256\ndefault_crl_days=30\npolicy=p\n[p]\ncommonName=supplied\n")
        return ["-config", conf, "-cert", i.cert, "-keyfile", i.key, "-batch"]

    def _sign(self, root, name, request, days, extensions):
        now, more = datetime.now(timezone.utc), self.dir / f"{name}.ext"
        more.write_text(extensions)
        begin, end = (f"{now + timedelta(days=d):%Y%m%d%H%M%SZ}" for d in days)
        run("ca", *self._authority(root), "-in", request, "-out", self.dir / f"{name}.pem",
            "-notext", "-startdate", begin, "-enddate", end, "-extfile", more)

    def revoke(self, name, root="root"):
        """The day on which it was."""
        run("ca", *self._authority(root), "-revoke", self.made[name].cert)
        books = (self.dir / f"{root}.books").read_text().splitlines()
        day = next(line.split("\t")[2] for line in reversed(books) if line.startswith("R"))
        return f"20{day[:2]}-{day[2:4]}-{day[4:6]}"

    def crl(self, root="root"):
        """The file with the revocation list of an authority as of now."""
        path = self.dir / f"{root}.crl"
        run("ca", *self._authority(root), "-gencrl", "-out", path)
        return path

    def store(self, name, *identities):
        """A file with these certificates."""
        path = self.dir / f"{name}.store"
        path.write_text("".join(i.cert.read_text() for i in identities))
        return path
