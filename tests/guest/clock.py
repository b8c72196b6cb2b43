"""What a guest cannot find out by itself while this machine is busy: how fast its clock runs, and what time it is."""
import ctypes
import functools
import mmap
import socket
import threading
import time


@functools.cache
def counter_khz():
    """Rate of this machine's time stamp counter, which is the guest's as well. Its kernel is not left to find it: while this machine is
    busy it may be wrong by a factor of three, and then goes on with a clock that is as wrong."""
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex("0f31 48c1e220 4809d0 c3"))  # rdtsc; shl rdx, 32; or rax, rdx; ret
    read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(code)))

    def now():
        """Of some readings the one that was interrupted least: (counter, nanoseconds)."""
        readings = [(time.monotonic_ns(), read(), time.monotonic_ns()) for _ in range(20)]
        before, counter, after = min(readings, key=lambda r: r[2] - r[0])
        return counter, (before + after) / 2

    first = now()
    time.sleep(0.5)
    last = now()
    return round((last[0] - first[0]) * 1e6 / (last[1] - first[1]))


class Clock:
    """Tells the time to a few milliseconds: who connects is answered when a second begins, with its number."""

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.close()

    def serve(self):
        while True:
            try:
                asked, _ = self.listener.accept()
            except OSError:
                return  # closed
            with asked:
                second = int(time.time()) + 1
                time.sleep(max(0, second - time.time()))
                try:
                    asked.sendall(f"{second}\n".encode())
                except OSError:
                    pass  # the guest has lost its power meanwhile
