"""`python -m tools.crash`: crash states of a program of one's own, or of everything, at random."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from tools.crash import deep, examine, own, recorder, rehearse, shim, torture, workloads
from tools.crash.examine import Check, Share
from tools.crash.rehearse import Record
from tools.scratch import directory_in_memory


def main() -> int:
    options = _options()
    if why := options.missing():
        print(f"nothing can be recorded here: {why}", file=sys.stderr)
        return 2
    keep = Path(options.keep or tempfile.mkdtemp(prefix="pagestore-crash-"))
    seed = time.time_ns() % 1_000_000_000 if options.seed is None else options.seed
    print(f"seed {seed}; what fails is left in {keep}", flush=True)
    return int(options.run(options, seed, keep))


def _options() -> argparse.Namespace:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--seed", type=int, help="the same seed, the same states")
    common.add_argument("--keep", metavar="DIR", help="where bad states are left")
    parser = argparse.ArgumentParser(prog="python -m tools.crash", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="program|workload|torture")
    program = commands.add_parser(
        "program", parents=[common], help="record a program's workload and crash it"
    )
    program.add_argument("work", metavar="MODULE:FUNCTION", help="work(path)")
    program.add_argument("--check", metavar="MODULE:FUNCTION", help="check(store); may raise")
    program.add_argument("--every", type=int, default=1, metavar="N", help="every N-th state")
    program.set_defaults(run=_program, missing=recorder.missing)
    one = commands.add_parser(
        "workload", parents=[common], help="crash one of the harness's own workloads"
    )
    one.add_argument("name", help=f"one of {', '.join(workloads.FROM_NOTHING)}, or 'wander N'")
    one.add_argument("--state", type=int, metavar="N", help="only put this state into DIR")
    one.set_defaults(run=_workload, missing=recorder.missing)
    everything = commands.add_parser(
        "torture", parents=[common], help="random workloads, crashes, faults, inputs"
    )
    everything.add_argument("--seconds", type=float, default=600)
    everything.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    everything.set_defaults(run=_torture, missing=shim.missing)
    return parser.parse_args()


def _program(options: argparse.Namespace, seed: int, keep: Path) -> int:
    sys.path.insert(0, os.getcwd())
    check = own.function(options.check) if options.check else None
    with recorder.recorder() as record_of, directory_in_memory() as work:
        record = record_of(own.perform, options.work, *deep.fresh(work / "program"))
        return _report(record, seed, keep, Share(every=options.every), check)


def _workload(options: argparse.Namespace, seed: int, keep: Path) -> int:
    with recorder.recorder() as record_of, directory_in_memory() as work:
        record = record_of(rehearse.perform, options.name, *deep.fresh(work / "workload"))
        if options.state is None:
            return _report(record, seed, keep, Share(), None)
        examine.keep(record, seed, options.state, keep)
        print((keep / "what.txt").read_text(), end="")
        return 0


def _report(record: Record, seed: int, keep: Path, share: Share, check: Check | None) -> int:
    steps = sum(known is not None for known in record.known)
    print(f"recorded {len(record.ops)} operations, {steps} acknowledged steps", flush=True)
    report = examine.examine(record, seed, share, check=check)
    for failure in report.failures:
        where = keep / f"state-{failure.number}"
        examine.keep(record, seed, failure.number, where)
        print(f"FAILED state {failure.number} ({failure.words}): {failure.what}; see {where}")
    print(
        f"{report.states:,} crash states in {report.seconds:.0f} s, "
        f"{len(report.failures)} of them not as they must be"
    )
    return int(bool(report.failures))


def _torture(options: argparse.Namespace, seed: int, keep: Path) -> int:
    total = torture.torture(
        seed, options.seconds, keep, options.jobs, lambda text: print(text, flush=True)
    )
    return int(bool(total.failures))


if __name__ == "__main__":
    sys.exit(main())
