"""Certificates for inside links, made with the commands that an operator would use, and the hashes
of their keys, found without a line of the programs under test."""
import hashlib
import ssl
import subprocess
from pathlib import Path

from labnet import LabError, tool

EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


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

    def context(self, server=True, trust=None):
        """For a peer made of Python. Whoever is at the other end is believed, unless `trust` names
        a file of certificates that has to vouch for it."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
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
            run("req", "-x509", *EC, "-keyout", i.key, "-out", i.cert, "-days", 30,
                "-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        return self.made[name]

    def self_signed(self, name, domain):
        if name not in self.made:
            i = self.made[name] = self._paths(name)
            run("req", "-x509", *EC, "-days", 30, "-subj", f"/CN={domain}",
                "-addext", f"subjectAltName=DNS:{domain}", "-keyout", i.key, "-out", i.cert)
        return self.made[name]

    def signed(self, name, domain, root="root", days=30):
        """days=-1: expired yesterday."""
        if name not in self.made:
            i, ca = self._paths(name), self.root(root)
            request, more = self.dir / f"{name}.csr", self.dir / f"{name}.ext"
            run("req", "-new", *EC, "-subj", f"/CN={domain}", "-keyout", i.key, "-out", request)
            more.write_text(f"subjectAltName=DNS:{domain}\nbasicConstraints=critical,CA:FALSE\n")
            run("x509", "-req", "-in", request, "-CA", ca.cert, "-CAkey", ca.key, "-CAcreateserial",
                "-days", days, "-extfile", more, "-out", i.cert)
            self.made[name] = i
        return self.made[name]

    def store(self, name, *identities):
        """A file with these certificates."""
        path = self.dir / f"{name}.store"
        path.write_text("".join(i.cert.read_text() for i in identities))
        return path
