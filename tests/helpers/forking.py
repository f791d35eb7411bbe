"""The command ``calograd`` for scripts that run it many times: forks of one process that has imported everything.

A start of Python with torch takes seconds, a fork hundredths of one. `command` serves while its context lasts; run as
a script, this module is the server.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

CLIENT = """\
#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    asked = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [asked[:1]], [0, 1, 2])
    server.sendall(asked[1:])
    server.shutdown(socket.SHUT_WR)
    sys.exit(int(server.recv(16) or b"1"))
"""
"""Sends arguments, folder, environment and its three streams; exits as the fork did, or with 1 where that died."""


@contextmanager
def command() -> Iterator[Path]:
    """Serve the command in a folder of its own, for PATH; a socket's address must be short, so not the test's."""
    with TemporaryDirectory() as folder:
        address = f"{folder}/socket"
        client = Path(folder, "calograd")
        client.write_text(CLIENT.format(python=sys.executable, address=address))
        client.chmod(client.stat().st_mode | stat.S_IXUSR)
        with subprocess.Popen([sys.executable, __file__, address], stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            try:
                yield Path(folder)
            finally:
                server.terminate()


def serve(address: str) -> None:
    """Answer until terminated."""
    import distributed  # noqa: F401 - forks have all of these
    import torch

    import calograd.evaluation.compare
    import calograd.geant4.production
    import calograd.gradients.gradient
    import calograd.surrogate
    import calograd.training.tasks.adapt
    import calograd.training.train  # noqa: F401

    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # imports torch's compiler, which takes longer than torch
    gc.freeze()  # garbage collections of forks leave out what all have
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            asking, _ = listening.accept()
            with asking:
                first, streams, _, _ = socket.recv_fds(asking, 1, 3)
                asked = first + b"".join(iter(lambda: asking.recv(1 << 16), b""))  # noqa: B023 - read at once
                child = os.fork()
                if child == 0:
                    listening.close()
                    run(asking, streams, *json.loads(asked))
                for stream in streams:
                    os.close(stream)
                os.waitpid(child, 0)  # one at a time, as a script runs them


def run(
    asking: socket.socket, streams: list[int], arguments: list[str], folder: str, environment: dict[str, str]
) -> None:
    """Be the command, tell its exit code and end."""
    from calograd.cli import main

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["calograd", *arguments]
    code = 1
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        asking.sendall(str(code).encode())
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
