"""Everything that reads what others wrote, each as one function from bytes.

A target ends quietly when the input was taken or refused as declared.  Whatever else comes out of it
is a fault: another exception, an error no person could read, or something taken that the rest of the
system could not carry.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import decisions, files, mutators, records, texts, wire
from tests.fuzz.limits import Run
from tests.fuzz.mutators import Mutator

CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True, slots=True)
class Target:
    """``make`` gets an empty folder for the files that the code under test wants to see."""

    name: str
    make: Callable[[Path], Run]
    mutate: Mutator

    @property
    def corpus(self) -> Path:
        return CORPUS / self.name

    def seeds(self) -> dict[str, bytes]:
        """Valid examples, and the inputs that once broke something."""
        return {path.name: path.read_bytes() for path in sorted(self.corpus.iterdir())}


TARGETS = {
    target.name: target
    for target in (
        Target("frames", wire.frames, mutators.messages),
        Target("messages", wire.messages, mutators.messages),
        Target("engine", decisions.engine, mutators.messages),
        Target("control", decisions.control, mutators.messages),
        Target("cpu", files.cpu, mutators.words),
        Target("memory", files.memory, mutators.words),
        Target("places", files.places, mutators.words),
        Target("labels", texts.labels, mutators.words),
        Target("config", texts.config, mutators.words),
        Target("originals", records.originals, mutators.json_text),
        Target("docker", records.docker, mutators.json_text),
    )
}
