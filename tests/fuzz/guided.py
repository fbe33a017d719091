"""One target under atheris (libFuzzer): inputs that reach new code are kept and changed further.

``python -m tests.fuzz.guided TARGET INPUTS SEED FOLDER``: the child of ``python -m tests.fuzz``.  It ends
with one line of JSON; needs the dependency group ``fuzz``.
"""

import hashlib
import json
import os
import sys
import traceback
from pathlib import Path
from random import Random

import atheris

# An input is interesting for how far it comes in the targets, too.
_TARGETS = [f"tests.fuzz.{name}" for name in ("decisions", "files", "records", "texts", "wire")]
# Of others, the only parser in Python that we lean on.
with atheris.instrument_imports(
    include=["escra_common", "escra_agent", "escra_controller", "tomllib", *_TARGETS]
):
    from tests.fuzz.limits import Meter
    from tests.fuzz.targets import TARGETS, Target

_MAX_INPUT_BYTES = 4096
# Where even libFuzzer must step in: it has our limits many times over.
_STUCK_S = 20
_BLOATED_MIB = 1024


class Session:
    """Counts the inputs; ends the process after the last, or at the first fault."""

    def __init__(self, target: Target, inputs: int, folder: Path) -> None:
        self._target = target
        self._inputs = inputs
        self._meter = Meter(target.make(folder))

    def one(self, data: bytes) -> None:
        try:
            self._meter(data)
        except Exception as error:  # whatever it is, it is what was looked for
            self._end({"fault": f"{type(error).__name__}: {error}"[:500], "input": self._keep(data)}, error)
        if self._meter.inputs >= self._inputs:
            self._end({})

    def mutate(self, data: bytes, max_size: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.5:
            return bytes(atheris.Mutate(data, max_size))
        return self._target.mutate(data, random)[:max_size]

    def _keep(self, data: bytes) -> str:
        """Among the seeds, where the tests will find it."""
        path = self._target.corpus / f"fault-{hashlib.sha256(data).hexdigest()[:12]}"
        path.write_bytes(data)
        return str(path)

    def _end(self, result: dict[str, object], error: Exception | None = None) -> None:
        if error is not None:
            traceback.print_exception(error)
        meter = self._meter
        numbers = {
            "inputs": meter.inputs,
            "slowest_ms": round(meter.slowest_s * 1e3, 1),
            "grown_mib": round(meter.grown_bytes / (1 << 20), 1),
        }
        print(json.dumps(numbers | result), flush=True)
        sys.stderr.flush()
        # libFuzzer's own end would take the one above for a crash.
        os._exit(1 if result else 0)


def main() -> None:
    name, inputs, seed, folder = sys.argv[1:]
    found, files = Path(folder, "found"), Path(folder, "files")
    found.mkdir()
    files.mkdir()
    session = Session(TARGETS[name], int(inputs), files)
    options = [
        f"-seed={seed}",
        f"-max_len={_MAX_INPUT_BYTES}",
        f"-timeout={_STUCK_S}",
        f"-rss_limit_mb={_BLOATED_MIB}",
        f"-artifact_prefix={TARGETS[name].corpus}/fault-",
        str(found),
        str(TARGETS[name].corpus),
    ]
    atheris.Setup([sys.argv[0], *options], session.one, custom_mutator=session.mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
