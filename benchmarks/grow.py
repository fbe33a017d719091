"""As grow.c, in Python; see there.

python grow.py HOW SHAPE RATE_MIB_S BASE_MIB AMOUNT_MIB THREADS REPORT
"""

import json
import mmap
import signal
import statistics
import sys
import threading
import time
from pathlib import Path

CHUNK_BYTES = 256 << 10
CHUNKS_PER_MIB = 4
ONES = b"\1" * CHUNK_BYTES
MADV_POPULATE_WRITE = 23
STEPS = 8
JUMP_MIB_S = 1024
IDLE_S = 0.3
STALL_S = 0.001


def due_s(shape: str, rate_mib_s: float, amount_mib: float, mib: float) -> float:
    """Seconds from the signal to the moment when ``mib`` of ``amount_mib`` shall be there."""
    if shape == "staircase":
        step_mib = amount_mib / STEPS
        step = mib // step_mib
        step_s = max(step_mib / rate_mib_s, 2 * step_mib / JUMP_MIB_S)
        return step * step_s + (mib - step * step_mib) / JUMP_MIB_S
    return (IDLE_S if shape == "burst" else 0) + mib / rate_mib_s


class Grower:
    def __init__(self, chunks: int, *, populate: bool) -> None:
        self._populate = populate
        size = chunks * CHUNK_BYTES
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.took_s = [0.0] * chunks

    def touch(self, chunk: int) -> None:
        begin = chunk * CHUNK_BYTES
        start = time.monotonic()
        if self._populate:
            self._memory.madvise(MADV_POPULATE_WRITE, begin, CHUNK_BYTES)
        else:
            self._memory[begin : begin + CHUNK_BYTES] = ONES
        self.took_s[chunk] = time.monotonic() - start

    def grow(self, chunks: range, dues_s: list[float], begun: float) -> None:
        """One thread's share; lateness of more than a stall is not caught up."""
        late_s = 0.0
        for chunk, due_after_s in zip(chunks, dues_s, strict=True):
            due = begun + due_after_s + late_s
            time.sleep(max(0.0, due - time.monotonic()))
            if (behind_s := time.monotonic() - due) > STALL_S:
                late_s += behind_s
            self.touch(chunk)

    def free(self) -> None:
        self._memory.close()


def main(how: str, shape: str, rate: str, base: str, amount: str, threads: str, report: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    base_chunks = int(base) * CHUNKS_PER_MIB
    all_chunks = base_chunks + int(amount) * CHUNKS_PER_MIB
    grower = Grower(all_chunks, populate=how == "populate")
    for chunk in range(base_chunks):
        grower.touch(chunk)
    typical_s = statistics.median(grower.took_s[:base_chunks])
    # Every THREADS-th chunk for each, so that the pace does not depend on how many share it.
    shares = [range(base_chunks + n, all_chunks, int(threads)) for n in range(int(threads))]
    dues_s = [
        [due_s(shape, float(rate), float(amount), (chunk - base_chunks) / CHUNKS_PER_MIB) for chunk in share]
        for share in shares
    ]
    with Path(report).open("w") as out:
        signal.sigwait({signal.SIGUSR1})
        begun = time.monotonic()
        running = [
            threading.Thread(target=grower.grow, args=(share, dues, begun))
            for share, dues in zip(shares, dues_s, strict=True)
        ]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        seconds = time.monotonic() - begun
        grower.free()
        over_s = [took - typical_s for took in grower.took_s[base_chunks:]]
        stalls_ms = [round(stall * 1000, 3) for stall in over_s if stall > STALL_S]
        json.dump({"seconds": round(seconds, 4), "stalls_ms": stalls_ms}, out)


if __name__ == "__main__":
    main(*sys.argv[1:8])
