"""Tells a guest what time it is, to a few milliseconds: who connects is answered when a second begins, with its number."""
import socket
import threading
import time


class Clock:
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
