"""`python -m tests.chaos`: strikes a running Jobhook with every fault there is, and counts what is lost."""

import argparse
import random
import resource
import shutil
import sys
import tempfile
from pathlib import Path

import orjson
from rich.console import Console

from app.cli.output import print_table
from tests.chaos.evidence import life
from tests.chaos.fault import Fault
from tests.chaos.faults import REGISTER
from tests.chaos.ledger import Episode
from tests.chaos.report import Row, as_json, markdown, rows, table
from tests.chaos.runner import Outcome, Runner, plan, planned_seconds
from tests.chaos.world import World

OPEN_FILES = 8192
"""For a thousand connections at once, in the receivers and here."""
LIVES_SHOWN = 10
SEEDS = 10**6

console = Console(stderr=True)


def main() -> int:
    """Runs, reports, and returns the exit code: 0 if every promise was kept."""
    options = _options()
    faults = [fault for fault in REGISTER if not options.only or any(word in fault.name for word in options.only)]
    if options.list or not faults:
        sys.stdout.write("".join(f"{fault.name}{_why_not(fault)}\n" for fault in faults))
        return 0 if faults else 2
    seed = random.randrange(SEEDS) if options.seed is None else options.seed  # noqa: S311
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES if hard < 0 else min(OPEN_FILES, hard), hard))
    due = [fault for fault in faults if fault.quick or not options.quick]
    worlds = list(dict.fromkeys(fault.world for fault in due))  # one after the other
    stages = [_stage(world, [fault for fault in due if fault.world is world], seed, options) for world in worlds]
    lines = [line for stage, _ in stages for line in stage]
    if options.json:
        outcomes = [outcome for _, outcome in stages]
        sys.stdout.write(orjson.dumps(as_json(lines, outcomes, seed), option=orjson.OPT_INDENT_2).decode() + "\n")
    elif options.markdown:
        sys.stdout.write(markdown(lines) + "\n")
    else:
        print_table(table(lines))
    return 1 if any(outcome.violations for _, outcome in stages) else 0


def _stage(kind: type[World], faults: list[Fault], seed: int, options: argparse.Namespace) -> tuple[list[Row], Outcome]:
    """All faults of one kind of world."""
    folder = Path(tempfile.mkdtemp(prefix="jobhook-chaos-"))  # kept if anything goes wrong
    with kind(folder, seed, quick=options.quick) as world:
        begun = min((delivery.sent for delivery in world.ledger.deliveries), default=0.0)
        planned = plan(faults, world.random, quick=options.quick)
        seconds = options.seconds or planned_seconds(planned)
        console.print(f"{len(planned)} faults in {seconds:.0f} s or less, seed {seed}", highlight=False)
        outcome = Runner(world, options.seconds, _tell).run(planned)
        lines = rows(world.ledger, outcome, faults)
        _explain(world, outcome, begun, seed)
        for episode in world.ledger.episodes:
            if episode.last and options.slow and episode.seconds > options.slow:
                console.print(f"{episode.fault} took {episode.seconds:.1f} s because of", highlight=False)
                _tell_life(world, episode.last, begun)
    if not outcome.violations:
        shutil.rmtree(folder)
    return lines, outcome


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, help="how long in each world, instead of what it takes")
    parser.add_argument("--seed", type=int, help="decides what strikes when and whom; printed at the start")
    parser.add_argument("--only", nargs="+", metavar="FAULT", help="faults whose name contains one of these")
    parser.add_argument("--quick", action="store_true", help="the short faults, one of each kind")
    parser.add_argument("--list", action="store_true", help="name the faults and end")
    parser.add_argument("--slow", type=float, metavar="S", help="tell why whatever took so many seconds to heal did")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    parser.add_argument("--markdown", action="store_true", help="the table as the README has it")
    return parser.parse_args()


def _why_not(fault: Fault) -> str:
    return f" (not run: {fault.missing})" if fault.missing else ""


def _tell(episode: Episode) -> None:
    mark = "[green]healed[/]" if episode.healed else "[red]not healed[/]"
    console.print(f"  {mark} in {episode.seconds:5.1f} s  {episode.fault}", highlight=False)


def _explain(world: World, outcome: Outcome, begun: float, seed: int) -> None:
    total = len(world.ledger.deliveries)
    console.print(f"{total:,} deliveries in {outcome.seconds:.0f} s, {len(outcome.violations)} broken promises")
    if outcome.skipped:
        spare = sum(fault.spare for fault in outcome.skipped)
        names = [fault.name for fault in outcome.skipped if not fault.spare]
        console.print(f"no time for: {'; '.join([*names, f'{spare} spare ones'])}", highlight=False)
    for violation in outcome.violations:
        console.print(f"[red]{violation.rule}[/] {violation.event or ''} {violation.text}", highlight=False)
    broken = list(dict.fromkeys(violation.event for violation in outcome.violations if violation.event))
    for event in broken[:LIVES_SHOWN]:
        _tell_life(world, event, begun)
    if outcome.violations:
        console.print(f"Again: python -m tests.chaos --seed {seed}; logs are in {world.stack.folder}")


def _tell_life(world: World, event: str, begun: float) -> None:
    console.print("\n".join(life(event, world.ledger, world.inbox, begun)), highlight=False, markup=False)


if __name__ == "__main__":
    sys.exit(main())
