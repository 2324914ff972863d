"""The memory that long pairs take, each case in a process of its own. With -s it prints the figures."""

import subprocess
import sys

import pytest

BOUND = 20
"""MiB for one thread, as `align` promises."""

PROGRAM = """
import resource, sys
import numpy as np
from refinerl.alignment import align
length, alphabet, rate = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
random = np.random.default_rng(0)
original = random.integers(0, alphabet, length)
refined = np.where(random.random(len(original)) < rate, random.integers(0, alphabet, len(original)), original)
align([original[:9]], [refined[1:9]], threads=1)
# What Python freed while it imported would hide what the alignment takes: the high-water mark starts at what is held.
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) / 1024
before = status("VmRSS")
(found,) = align([original], [refined], threads=1)
print(status("VmHWM") - before, found.distance)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("length", "alphabet", "rate"),
    # 8191 tokens are as many as all rows are stored for.
    [(32768, 50_000, 0.1), (32768, 500, 0.1), (32768, 50_000, 1.0), (32768, 500, 1.0), (32768, 4, 1.0), (8191, 4, 1.0)],
)
def test_long_pairs_take_what_is_promised(length, alphabet, rate):
    command = [sys.executable, "-c", PROGRAM, str(length), str(alphabet), str(rate)]
    result = subprocess.run(command, check=True, timeout=300, capture_output=True, text=True)
    taken, distance = map(float, result.stdout.split())
    print(f"\n{length} tokens of {alphabet} ids, {rate:.0%} edited: {taken:.1f} MiB at distance {distance:.0f}")
    assert distance > length / 8
    assert 0 < taken < BOUND
