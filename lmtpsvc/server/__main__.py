"""
The program of a worker process: twistd, with what it takes from its supervisor.
"""

from __future__ import annotations

import os
import signal

# Ctrl-C in a terminal reaches all processes; the supervisor stops the workers.
signal.signal(signal.SIGINT, signal.SIG_IGN)

# SIGHUP, which reloads, waits until there is something that heeds it.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})

if "LISTEN_FDS" in os.environ:
    # So that a systemd: endpoint finds its descriptors, or what stands for them.  Twisted looks
    # when it is imported.
    os.environ["LISTEN_PID"] = str(os.getpid())

if __name__ == "__main__":
    from twisted.scripts.twistd import run

    run()
