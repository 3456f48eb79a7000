"""Processes started together, as torchrun starts them."""

import os
import socket
import subprocess
import sys


def launched(words, world=2):
    """Start the ranks as torchrun does; their exit codes and what they wrote."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    ranks = [
        subprocess.Popen(
            [sys.executable, *map(str, words)],
            env={**shared, "RANK": str(number), "LOCAL_RANK": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(world)
    ]
    outputs = [rank.communicate(timeout=300) for rank in ranks]
    return [rank.returncode for rank in ranks], outputs
