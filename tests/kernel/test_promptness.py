"""The agent is scheduled before the containers, for as long as it sleeps in between."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks.pair import running_pair

pytestmark = pytest.mark.kernel

NO_DOCKER = "[docker]\nenabled = false\n"
BUSY = """
import asyncio, concurrent.futures, json, os, time
from escra_agent import promptness

promptness.STEP_BACK_S = 0.5
os.nice(-5)
seen = {}

def policy():
    return os.sched_getscheduler(0)

async def scene():
    loop = asyncio.get_running_loop()
    before, after = (concurrent.futures.ThreadPoolExecutor(1) for _ in range(2))
    await loop.run_in_executor(before, policy)
    prompt = promptness.Promptness(True)
    prompt.begin()

    async def look(when):
        seen[when] = [policy(), *[await loop.run_in_executor(pool, policy) for pool in (before, after)]]

    await look("at first")
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        await asyncio.sleep(0)
    await look("busy")
    seen["nice"] = os.getpriority(os.PRIO_PROCESS, 0)
    await asyncio.sleep(0.7)
    await look("later")
    prompt.close()

asyncio.run(scene())
print(json.dumps(seen))
"""


def test_who_runs_on_end_steps_back_for_a_while_with_all_threads() -> None:
    done = subprocess.run([sys.executable, "-c", BUSY], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "at first": 3 * [os.SCHED_RR],
        "busy": 3 * [os.SCHED_OTHER],
        "nice": -5,
        "later": 3 * [os.SCHED_RR],
    }
    assert "busy without a pause" in done.stdout


@pytest.mark.parametrize("realtime", [True, False])
def test_the_agent_is_realtime_unless_people_say_no(realtime: bool) -> None:
    keys = "" if realtime else "realtime = false\n"
    with running_pair("", keys + NO_DOCKER) as pair:
        pid = pair.processes["agent"].pid
        pair.wait_until(lambda: bool(pair.ask("agents")), "the agent joined")
        if realtime:
            pair.wait_until(lambda: os.sched_getscheduler(pid) == os.SCHED_RR, "it is realtime")
        assert os.sched_getscheduler(pid) == (os.SCHED_RR if realtime else os.SCHED_OTHER)
