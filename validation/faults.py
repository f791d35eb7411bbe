"""Kill commands, damage files, fill the disk: faults.py -o FOLDER [--only kills files disk writers worker].

Commands are really killed (SIGKILL to their process group at random times), files are cut and single bits flipped, a
small tmpfs is filled (this needs root). After that the same command is given again and its result compared with that
of an undisturbed run. A case that is finished is not repeated: FOLDER/results.json has them, and the table is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import psutil
from fault_files import damage_files
from fault_inputs import Ended, make_inputs, run, start, steps_done, wait, where
from safetensors import safe_open

from calograd.events.library.reader import open_library
from calograd.training.log import read_log

SIMULATE = ("simulate", "--energies", "1", "--showers", "12", "--seed", "3", "-o", "library-1.h5")
TRAIN = ("train", "train.toml", "-o", "run")
OPTIMISE = ("optimise", "model", "optimise.toml", "--landscape", "0", "-o", "best")
SEGMENT = ("segment", "library.h5", "--cell", "2.5", "6", "-o", "measured.h5")
SAMPLE = ("sample", "model", "--cell", "2.5", "6", "--energy", "10", "-n", "3000", "--steps", "2", "-o", "generated.h5")
CHAIN = 5
"""Number of kills that one run has to survive."""
ROOM = 8_000
"""Bytes that are left on the small disk at first."""


class Kind(NamedTuple):
    """A command that resumes: its arguments, its progress by its folder, and the result that has to be equal."""

    arguments: tuple[str, ...]
    progress: Callable[[Path], Any]
    result: Callable[[Path], Any]


def showers_done(folder: Path) -> int:
    """Return the number of finished showers of a library, all of which have to be readable."""
    path = folder / "library-1.h5"
    parts = folder / "library-1.h5.parts"
    if not path.exists():
        return len(list(parts.glob("*.h5"))) - 1 if parts.exists() else -1
    with open_library(path) as library:
        return len(library.read().energy)


def weights(folder: Path) -> dict[str, Any]:
    """Return the weights of a run, and its log without times."""
    with safe_open(folder / "run/model.safetensors", framework="np") as file:
        arrays = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118 - no mapping
    return arrays | {"log": [{k: v for k, v in e.items() if k != "seconds"} for e in read_log(folder / "run")]}


KINDS = {
    "simulate": Kind(SIMULATE, showers_done, lambda folder: (folder / "library-1.h5").read_bytes()),
    "train": Kind(TRAIN, lambda folder: where(folder / "run"), weights),
    "optimise": Kind(
        OPTIMISE, lambda folder: steps_done(folder / "best"), lambda folder: (folder / "best/ascent.json").read_bytes()
    ),
}
PLAIN: dict[str, tuple[tuple[str, ...], str]] = {
    "segment": (SEGMENT, "measured.h5"), "sample": (SAMPLE, "generated.h5")
}  # fmt: skip


def kills(name: str, number: int, work: Path, seed: int) -> str:
    """Kill a command ``number`` times, `CHAIN` times on the way of every run."""
    kind, rng = KINDS[name], random.Random(f"{seed} {name}")
    whole, seconds = work / "whole", 0.0
    make_inputs(whole)
    began = time.monotonic()
    expect(run(kind.arguments, whole), 0)
    seconds = time.monotonic() - began
    killed, runs, strays = 0, 0, 0
    while killed < number:
        folder, runs, far = work / f"run-{runs}", runs + 1, None
        make_inputs(folder)
        for _ in range(min(CHAIN, number - killed)):
            began = time.monotonic()
            child = start(kind.arguments, folder, folder / "log.txt")
            end = began + rng.uniform(0, seconds)
            while time.monotonic() < end and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                time.sleep(0.002)
            os.killpg(child, signal.SIGKILL)
            ended = wait(child, folder / "log.txt")
            if ended.code != -signal.SIGKILL:
                expect(ended, 0)
                seconds = min(seconds, time.monotonic() - began) if far is None else seconds
                break
            killed += 1
            print(f"{name}: kill {killed} after {time.monotonic() - began:.2f} s", flush=True)
            now = kind.progress(folder)
            check(far is None or now >= far, f"work was lost: {now} after {far}")
            far = now
        else:
            expect(run(kind.arguments, folder), 0)
        check(kind.result(folder) == kind.result(whole), "another result than that of an undisturbed run")
        strays += len(list(folder.rglob("*.tmp")))
        shutil.rmtree(folder)
    check(strays == 0, f"{strays} temporary files are left")
    return f"{killed} kills in {runs} runs: nothing finished was lost, every result is that of an undisturbed run"


def disk(name: str, work: Path) -> str:
    """Fill a small disk while a command runs; then make room and run the command again."""
    whole, small = work / "whole", work / "small"
    make_inputs(whole)
    command = KINDS[name].arguments if name in KINDS else PLAIN[name][0]
    expect(run(command, whole), 0)
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", small], check=True)
    try:
        make_inputs(small)
        before = {path: path.read_bytes() for path in small.rglob("*") if path.is_file()}
        filler = small / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(small).free - ROOM))
        log = work / "log.txt"
        refusals, room = [], ROOM
        while not refusals or refusals[-1].code:
            ended = wait(start(command, small, log), log)
            if ended.code:
                check(ended.one_line and ("No space left" in ended.err or "are free" in ended.err), ended.err)
            refusals.append(ended)
            check(all(path.read_bytes() == content for path, content in before.items()), "an input has changed")
            room *= 10
            os.truncate(filler, max(0, filler.stat().st_size - room))
        check(len(refusals) > 1, "the disk was never full")
        if name in KINDS:
            check(KINDS[name].result(small) == KINDS[name].result(whole), "another result")
        else:
            check(same_hdf5(small / PLAIN[name][1], whole / PLAIN[name][1]), "another result")
        check(not list(small.rglob("*.tmp")), "temporary files are left")
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)
    return f"refused {len(refusals) - 1} times (`{refusals[0].complaint}`), went on when there was room, same result"


def writers(name: str, work: Path) -> str:
    """Run the same command twice at once."""
    make_inputs(work)
    command = KINDS[name].arguments if name in KINDS else PLAIN[name][0]
    logs = [work / "first.txt", work / "second.txt"]
    children = [start(command, work, log) for log in logs]
    ended = [wait(child, log) for child, log in zip(children, logs, strict=True)]
    codes = sorted(each.code for each in ended)
    if codes == [0, 0]:  # one after the other; only a run that goes on may be asked for again
        check(name in ("train", "optimise"), "both wrote")
        return "one after the other: the second found the run finished"
    check(codes == [0, 2] and all(each.one_line for each in ended if each.code), str(ended))
    return f"one wrote, the other was refused: `{next(e.complaint for e in ended if e.code)[:100]}`"


def worker(work: Path) -> str:
    """Kill a Dask worker while `calograd simulate --workers 2` runs."""
    make_inputs(work)
    expect(run(SIMULATE, work), 0)
    library = (work / "library-1.h5").read_bytes()
    (work / "library-1.h5").unlink()
    log, victims = work / "log.txt", 0
    child = start((*SIMULATE, "--workers", "2"), work, log)
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        kernels = [p for p in psutil.Process(child).children(recursive=True) if "calograd.geant4.kernel" in words(p)]
        if kernels and victims == 0:
            os.kill(kernels[0].ppid(), signal.SIGKILL)
            victims += 1
        time.sleep(0.02)
    expect(wait(child, log), 0)
    check(victims == 1, "no worker was caught at work")
    check((work / "library-1.h5").read_bytes() == library, "another library")
    return "its showers were simulated by another worker; the library has the same bytes"


def words(process: psutil.Process) -> str:
    """Return the command line of a process."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def same_hdf5(one: Path, other: Path) -> bool:
    """True if all datasets are equal."""
    with h5py.File(one) as a, h5py.File(other) as b:
        return set(a) == set(b) and all(np.array_equal(a[name][()], b[name][()]) for name in a)


def check(good: bool, otherwise: str) -> None:
    """Raise unless a condition holds."""
    if not good:
        raise AssertionError(otherwise)


def expect(ended: Ended, code: int) -> None:
    """Raise unless a command ended with this code."""
    check(ended.code == code, f"exit code {ended.code}: {ended.err[-500:]}")


def cases(wanted: list[str], numbers: list[int], seed: int, flips: int) -> dict[str, Callable[[Path], Any]]:
    """Return the cases by name: functions of a folder that return what happened, or several such by name."""
    todo: dict[str, Callable[[Path], Any]] = {}
    if "kills" in wanted:
        for name, number in zip(KINDS, numbers, strict=True):
            if number:
                todo[f"kill -9 {name}"] = lambda work, name=name, number=number: kills(name, number, work, seed)
    if "files" in wanted:
        todo["damaged files"] = lambda work: damage_files(work, flips, seed)
    if "disk" in wanted and os.geteuid() == 0:
        for name in (*KINDS, *PLAIN):
            todo[f"disk full, {name}"] = lambda work, name=name: disk(name, work)
    if "writers" in wanted:
        for name in (*KINDS, "segment"):
            todo[f"two at once, {name}"] = lambda work, name=name: writers(name, work)
    if "worker" in wanted:
        todo["kill -9 a Dask worker"] = worker
    return todo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=["kills", "files", "disk", "writers", "worker"])
    parser.add_argument("--kills", nargs=3, type=int, default=[20, 20, 10], help="of simulate, train, optimise")
    parser.add_argument("--flips", type=int, default=200, help="bits flipped in every kind of file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    kept = output / "results.json"
    results: dict[str, str] = json.loads(kept.read_text()) if kept.exists() else {}
    failed = False
    for name, do in cases(options.only, options.kills, options.seed, options.flips).items():
        if name not in results:
            work = output / name.replace(" ", "-").replace(",", "")
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            try:
                found = do(work)
            except AssertionError as wrong:
                failed, found = True, f"FAILED: {' '.join(str(wrong).split())}"
                print(f"{name}: {found}", flush=True)
                continue
            shutil.rmtree(work)
            results |= found | {name: "see below"} if isinstance(found, dict) else {name: found}
            kept.write_text(json.dumps(results, indent=1) + "\n")
        print(f"{name}: {results[name]}", flush=True)
    print("\n| case | what happened |\n|---|---|")
    for name, found in results.items():
        if found != "see below":
            print(f"| {name} | {found} |")
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()
