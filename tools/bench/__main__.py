"""`python -m tools.bench`: measure, save tables and plots; judge only if asked."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attrs import asdict

from tools.bench import breakdown, report, targets
from tools.bench.harness import machine, unmount_below, warm_up
from tools.bench.peers import Lacks, find, names
from tools.bench.results import Results
from tools.bench.stores import SCALES, Bench, Sample
from tools.bench.work import MODULES

ROOT = Path(__file__).parents[2]
USUAL = "pagestore,limit,lmdb,sqlite,rocksdb,reflink"  # no more than a package each
TURNS = ("pagestore_arrays", "pagestore_writes", "limit", "limit_new")
BASE = ("pagestore_arrays", "limit")
MORE_TURNS = {"W2": ("lmdb_versions",)}  # too close to be told apart otherwise
# Seconds: a work item of those that take turns, of another peer, and all of another peer's.
PATIENCE = {"full": (900, 240, 600), "quick": (120, 60, 300), "smoke": (60, 30, 120)}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if options.report:
        earlier = json.loads(Path(options.report).read_text())
        return _finish(earlier, Path(options.out), strict=options.strict)
    Path(options.dir).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="pagestore-bench-", dir=options.dir)).absolute()
    begun = time.monotonic()
    try:
        if options.scale != "smoke":
            _say(f"touching memory: {warm_up((1 if options.scale == 'quick' else 6) << 30):.1f} s")
        if options.profile:
            with (folder / "samples").open("w") as file:
                bench = Bench("W1", ["pagestore_arrays"], folder, SCALES[options.scale], file)
                Path(options.profile).write_text("\n".join(breakdown.run(bench)) + "\n")
            return 0
        peers, left_out = _peers(options.peers)
        result: dict[str, Any] = {
            "scale": asdict(SCALES[options.scale]),
            "machine": machine(folder),
            "peers": {name: report.describe(name) for name in peers},
            "left out": left_out,
        }
        samples = list(_measure(folder, options.only, peers, options.scale))
    finally:
        unmount_below(folder)
        shutil.rmtree(folder, ignore_errors=True)
    result["seconds"] = round(time.monotonic() - begun)
    result["samples"] = [asdict(sample) for sample in samples]
    return _finish(result, Path(options.out), strict=options.strict)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument(
        "--quick", dest="scale", action="store_const", const="quick", default="full"
    )
    parser.add_argument("--scale", choices=SCALES, help="--quick is 64 MiB instead of 1 GiB")
    parser.add_argument("--only", type=_works, default=list(MODULES), metavar="W1,W3")
    parser.add_argument("--peers", help=f"beginnings of names, or all; usual: {USUAL}")
    parser.add_argument("--out", default="bench-results", help="where tables and plots go")
    parser.add_argument("--dir", default=tempfile.gettempdir(), help="where the stores go")
    parser.add_argument("--strict", action="store_true", help="fail when a target is missed")
    parser.add_argument("--profile", metavar="FILE", help="the steps of each operation instead")
    parser.add_argument("--report", metavar="JSON", help="only draw an earlier result again")
    options = parser.parse_args(arguments)
    if options.peers is None:
        options.peers = USUAL if options.scale == "full" else ""
    return options


def _works(text: str) -> list[str]:
    found = [item.upper() for item in text.split(",")]
    if not set(found) <= set(MODULES):
        raise argparse.ArgumentTypeError(f"work items are {', '.join(MODULES)}")
    return found


def _peers(asked: str) -> tuple[list[str], dict[str, str]]:
    """Peers that can run here, pagestore and the limit always; and why others cannot."""
    wanted = ("",) if asked == "all" else (*BASE, *filter(None, asked.split(",")))
    able, left_out = [], {}
    for name in names():
        if name.startswith(tuple(wanted)):
            try:
                find(name)
                able.append(name)
            except Lacks as e:
                left_out[name] = str(e)
    return able, left_out


def _measure(folder: Path, works: list[str], peers: list[str], scale: str) -> Iterator[Sample]:
    groups = [[name for name in TURNS if name in peers]]
    groups += [[name] for name in peers if name not in TURNS]
    together, single, in_all = PATIENCE[scale]
    for group in groups:
        inner = folder / group[0]
        inner.mkdir()
        alone = group[0] != TURNS[0]
        end = time.monotonic() + (in_all if alone else together * len(works))
        for item in works:
            if alone and group[0] in MORE_TURNS.get(item, ()):
                continue
            more = [n for n in MORE_TURNS.get(item, ()) if n in peers and not alone]
            able = [n for n in group + more if not find(n).works or item in find(n).works]
            if able:
                left = min(single if alone else together, end - time.monotonic())
                if left > 0:
                    yield from _run(item, able, inner, scale, left)
                else:
                    note = f"no time left for {item}, after {in_all} s"
                    yield Sample(item, "", group[0], "lacks", note=note)
        unmount_below(inner)
        shutil.rmtree(inner, ignore_errors=True)


def _run(
    item: str, peers: list[str], folder: Path, scale: str, patience: float
) -> Iterator[Sample]:
    """Run a child, and stop it if it takes too long; what it noted until then counts."""
    start, out = time.monotonic(), folder / f"{item}.samples"
    command = [sys.executable, "-m", "tools.bench.child", item, ",".join(peers)]
    command += [str(folder), scale, str(out)]
    child = subprocess.Popen(command, start_new_session=True, cwd=ROOT)
    try:
        code = child.wait(patience)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        code = child.wait()
        yield Sample(item, "", peers[-1], "lacks", note=f"stopped after {patience:.0f} s")
    _say(f"{item} {', '.join(peers)}: {time.monotonic() - start:.0f} s{' FAILED' * bool(code)}")
    if out.exists():
        for line in out.read_text().splitlines():
            yield Sample(**json.loads(line))
    elif code:
        yield Sample(item, "", peers[0], "failed", note=f"exit {code}")


def _finish(result: dict[str, Any], out: Path, *, strict: bool) -> int:
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    found = Results.of(result)
    text = report.markdown(found)
    (out / "results.md").write_text(text)
    print(text)
    try:
        from tools.bench import plots  # matplotlib is optional
    except ImportError as e:
        _say(f"no plots: {e}")
    else:
        plots.draw(found, out)
    _say(f"{result['seconds']} s in all; results in {out}")
    missed = any(verdict.ok is False for verdict in targets.judge(found))
    return int(found.failed() or (strict and missed))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
