"""A network for a test: places, each with a network namespace of its own, joined by a switch; each direction between two
places can be cut, without a word to anybody, as a network does it.

The test's process moves into a namespace that nobody else is in, which has the switch; so nothing of this is seen outside, and
nothing is left behind when the last process in it has ended. It needs root, or a kernel that lets users make namespaces.

A direction is cut by a neighbour's entry: what goes from A to B is sent to a link address that nobody has. So it needs no packet
filter and no queueing discipline, which kernels may lack, and whoever sends gets no error."""
import ctypes
import os
import subprocess

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
NOBODY = "02:ff:ff:ff:ff:ff"
PREFIX = "10.77.0"
libc = ctypes.CDLL(None, use_errno=True)


def call(function, *args):
    if function(*args) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def enter():
    """Moves this process into a namespace of its own. Returns "" or why that is impossible here. Once, before any thread."""
    uid, gid = os.getuid(), os.getgid()
    try:
        if uid == 0:
            call(libc.unshare, CLONE_NEWNET)
        else:
            call(libc.unshare, CLONE_NEWUSER | CLONE_NEWNET)
            with open("/proc/self/setgroups", "w") as f:
                f.write("deny")
            with open("/proc/self/uid_map", "w") as f:
                f.write(f"0 {uid} 1")
            with open("/proc/self/gid_map", "w") as f:
                f.write(f"0 {gid} 1")
        ip("link set lo up", "link add pave-switch type bridge", f"addr add {PREFIX}.254/24 dev pave-switch",
           "link set pave-switch up")
        ip("link add pave-try type veth peer name pave-yrt", "link del pave-try")
    except (OSError, subprocess.CalledProcessError) as e:
        return f"network namespaces cannot be made here: {getattr(e, 'stderr', None) or e}".strip()
    return ""


def ip(*lines, inside=None):
    """Commands of ip(8), as one batch."""
    subprocess.run(["ip", "-batch", "-"], input="".join(f"{line}\n" for line in lines), text=True, capture_output=True,
                   check=True, preexec_fn=inside)


class Place:
    """Something with an address. `inside` is to be a child's preexec_fn: then it runs there."""

    def __init__(self, name, number):
        self.name, self.number = name, number
        self.address, self.link = f"{PREFIX}.{number}", f"pv-{number}"
        self.mac = f"02:00:00:00:00:{number:02x}"
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        call(libc.unshare, CLONE_NEWNET)
        self.fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        call(libc.setns, home, CLONE_NEWNET)
        os.close(home)
        ip(f"link add {self.link} type veth peer name eth0 address {self.mac} netns /proc/{os.getpid()}/fd/{self.fd}",
           f"link set {self.link} master pave-switch up")
        ip("link set lo up", "link set eth0 up", f"addr add {self.address}/24 dev eth0", inside=self.inside)

    def inside(self):
        call(libc.setns, self.fd, CLONE_NEWNET)


class Network:
    def __init__(self, *names):
        self.places = {name: Place(name, number) for number, name in enumerate(names, 1)}
        self.cuts, self.unplugged = set(), set()
        for place in self.places.values():
            ip(*(self.route(place, other, True) for other in self.places.values() if other is not place), inside=place.inside)

    @staticmethod
    def route(place, other, through):
        return f"neigh replace {other.address} lladdr {other.mac if through else NOBODY} nud permanent dev eth0"

    def set(self, directions, through):
        for name in {a for a, _ in directions}:
            ip(*(self.route(self.places[name], self.places[b], through) for a, b in sorted(directions) if a == name),
               inside=self.places[name].inside)

    def cut(self, directions):
        """{(from, to)}: nothing that is sent arrives any more."""
        self.set(set(directions), False)
        self.cuts |= set(directions)

    def unplug(self, name):
        """The link itself goes down: the place is alone, and its sockets know nothing of it."""
        ip(f"link set {self.places[name].link} down")
        self.unplugged.add(name)

    def heal(self):
        self.set(self.cuts, True)
        for name in self.unplugged:
            ip(f"link set {self.places[name].link} up")
        self.cuts, self.unplugged = set(), set()


def both_ways(some, others):
    return {(a, b) for a in some for b in others} | {(b, a) for a in some for b in others}


def one_way(some, others):
    return {(a, b) for a in some for b in others}
