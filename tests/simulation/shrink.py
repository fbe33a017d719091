"""From a failing scenario to the few steps that matter: steps are left out, and lengths shortened,
as long as the same promise still breaks."""

import re
import time
from collections.abc import Callable
from dataclasses import replace

from tests.simulation.scenario import Scenario, Step

Run = Callable[[Scenario], str]


def kind(broken: str) -> str:
    """Which promise, and how, without the names and numbers of this case.

    >>> kind("promise 1: shop holds 655 millicores of 600")
    'promise 1: X holds'
    >>> kind("promise 4: c5 is not managed (memory), with 20 free")
    'promise 4: X is not managed (memory), with'
    """
    match = re.match(r"(?:promise (\d): )?(.*)", broken, re.DOTALL)
    assert match is not None
    promise, rest = match.groups()
    words = re.sub(r"\b([chs]\d+|shop|blog)\b", "X", rest)
    which = f"promise {promise}: " if promise else ""
    return which + re.split(r"\d|;|MemoryLimit|CpuLimit", words)[0].strip()


def shrink(scenario: Scenario, broken: str, run: Run, budget_s: float = 20.0) -> Scenario:
    """The smallest scenario found within the budget (CPU seconds) in which the same breaks."""
    wanted, deadline = kind(broken), time.process_time() + budget_s

    def fails(steps: tuple[Step, ...]) -> bool:
        return kind(run(replace(scenario, steps=steps))) == wanted

    steps = _without(scenario.steps, fails, deadline)
    steps = _shortened(steps, fails, deadline)
    return replace(scenario, steps=_without(steps, fails, deadline))


def _without(
    steps: tuple[Step, ...], fails: Callable[[tuple[Step, ...]], bool], deadline: float
) -> tuple[Step, ...]:
    """Leave out ever smaller parts (delta debugging)."""
    size = max(1, len(steps) // 2)
    while time.process_time() < deadline:
        at, smaller = 0, False
        while at < len(steps) and time.process_time() < deadline:
            fewer = steps[:at] + steps[at + size :]
            if fails(fewer):
                steps, smaller = fewer, True
            else:
                at += size
        if size == 1 and not smaller:
            break
        size = max(1, size // 2)
    return steps


def _shortened(
    steps: tuple[Step, ...], fails: Callable[[tuple[Step, ...]], bool], deadline: float
) -> tuple[Step, ...]:
    """Halve how long each trouble lasts."""
    for at, step in enumerate(steps):
        if not step.args or not isinstance(step.args[-1], float):
            continue
        shorter = replace(step, args=(*step.args[:-1], round(step.args[-1] / 2, 3)))
        if time.process_time() < deadline and fails((*steps[:at], shorter, *steps[at + 1 :])):
            steps = (*steps[:at], shorter, *steps[at + 1 :])
    return steps
