"""The demo authority of a development cluster, as a test needs it: it signs certificates, policies and roots that differ from those in
force in the members that a test names."""
import base64
import datetime
import json
import subprocess
import time
from pathlib import Path

from cluster import Failure


def at(seconds_from_now=0):
    """A whole second from now, as documents write it."""
    moment = datetime.datetime.fromtimestamp(int(time.time() + seconds_from_now), datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def payload(path):
    return json.loads(base64.b64decode(json.loads(Path(path).read_text())["payload"]))


def set_member(document, path, value):
    """"labels.0.until": value; the last part may be one beyond the end of a list."""
    *way, last = path.split(".")
    for name in way:
        document = document[int(name)] if isinstance(document, list) else document[name]
    if isinstance(document, list):
        if int(last) == len(document):
            document.append(value)
        else:
            document[int(last)] = value
    else:
        document[last] = value


class Authority:
    def __init__(self, cluster):
        self.cluster = cluster
        self.dir = cluster.dir / "authority"
        self.versions = {}
        self.count = 0
        self.keys = {"authority": "authority-1", "auditor": "auditor-1", "tenant": "tenant-a"}

    def sign(self, kind, document, keyids):
        """Returns the path of the envelope."""
        self.count += 1
        plain, out = self.dir / f"{kind}-{self.count}.json", self.dir / f"{kind}-{self.count}.dsse.json"
        plain.write_text(json.dumps(document))
        keys = [o for k in keyids for o in ("--key", f"{k}={self.dir / k}.pem")]
        self.cluster.pave("evidence", "sign", *keys, "--type", kind, plain, "--out", out)
        return out

    def sign_unseen(self, kind, document, keyids):
        """The same by other means than `pave evidence sign`, which looks at what it signs."""
        self.count += 1
        out, message = self.dir / f"{kind}-{self.count}.dsse.json", self.dir / f"{kind}-{self.count}.pae"
        media, text = f"application/vnd.pave.{kind}+json".encode(), json.dumps(document).encode()
        message.write_bytes(b"DSSEv1 %d %s %d %s" % (len(media), media, len(text), text))
        signatures = []
        for keyid in keyids:
            done = subprocess.run(["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", self.dir / f"{keyid}.pem", "-in", message],
                                  capture_output=True, check=True)
            signatures.append({"keyid": keyid, "sig": base64.b64encode(done.stdout).decode()})
        out.write_text(json.dumps({"payloadType": media.decode(), "payload": base64.b64encode(text).decode(), "signatures": signatures}))
        return out

    def new_key(self, keyid):
        """Its entry for a root."""
        path = self.dir / f"{keyid}.pem"
        self.cluster.pave("evidence", "keygen", "--out", path, "--keyid", keyid)
        return {"alg": "ed25519", "public": Path(f"{path}.pub").read_text()}

    def site(self, name, changes=(), version=None, unseen=False):
        """A certificate like the first one of the site, with changes (path, value), of the next version."""
        document = payload(self.cluster.dir / "evidence" / f"site-{name}.dsse.json")
        document["version"] = version or self.versions.get(name, document["version"]) + 1
        self.versions[name] = max(document["version"], self.versions.get(name, 0))
        for path, value in changes:
            set_member(document, path, value)
        return (self.sign_unseen if unseen else self.sign)("site", document, [self.keys["authority"], self.keys["auditor"]])

    def in_force(self, name, changes=()):
        """Has the driver take such a certificate in, and lists it in the next snapshot."""
        self.cluster.pave("site", "add", self.site(name, changes))
        self.refresh("--site", f"{name}={self.versions[name]}")

    def refresh(self, *options):
        self.cluster.pave("site", "refresh", "--key", f"{self.keys['authority']}={self.dir / self.keys['authority']}.pem", *options)

    def policy(self, preset, name, version, changes=(), by="tenant"):
        document = json.loads(self.cluster.pave("policy", "show", preset).stdout)
        document.update(name=name, version=version)
        for path, value in changes:
            set_member(document, path, value)
        return self.sign("policy", document, [self.keys["tenant"]] if by == "tenant"
                         else [self.keys["authority"], self.keys["auditor"]])

    def put_policy(self, *args, check=True, **options):
        return self.cluster.pave("policy", "put", self.policy(*args, **options), check=check)


def volume(cluster, name):
    return cluster.pave("volume", "show", name, parse=True)


def copy_of(cluster, name, site):
    """The state of the volume's copy in that site; None: there is none."""
    states = {n["site"]: n["state"] for n in volume(cluster, name)["nodes"]}
    return states.get(site)


def fails(cluster, name, site):
    """{rule: (field, value, source)} of what the site fails under the volume's policy."""
    return {f["rule"]: (f["field"], f["value"], f["source"]) for f in volume(cluster, name)["sites"][site]["failed"]}


def expect(condition, text):
    if not condition:
        raise Failure(text)
