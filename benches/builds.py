#!/usr/bin/env python3
"""Shows whether one build is slower than another: the same loads in turn, old, new, old, round after round.

    benches/builds.py OLD NEW [--rounds 9] [--servers 5] [--seconds 3]

OLD and NEW are directories with the release programs of two builds (paxos-server, paxos-client). Needs Python 3, and a
machine on which nothing else runs. Each turn starts its own servers on empty directories (under PAXOS_BENCH_DIR, else the
system's temporary directory), runs every load, and stops the servers.

Prints for each load the medians over all rounds of the ratios new : old and old : old; the second shows the noise of the
machine. The exit code is 1 if the geometric mean of new : old is below 0.98 or the ratio of one load is below 0.95. It is 3
if the geometric mean of old : old differs from 1 by more than 3 %: then the machine is too noisy for a result.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from steady import Cluster

# Clients, requests under way each, percent of reads.
LOADS = [(1, 1, 0), (64, 1, 0), (256, 1, 0), (1, 1, 100), (64, 1, 100), (256, 1, 100), (64, 1, 50), (4, 16, 0)]
MEAN_MIN, LOAD_MIN, NOISE_MAX = 0.98, 0.95, 0.03


def name(load):
    clients, pipeline, reads = load
    work = {0: "put", 100: "get"}.get(reads, f"{reads} % get")
    return f"{work}, {clients} x {pipeline}"


def turn(programs, folder, servers, seconds):
    """Rate and servers' CPU an operation (us) of each load."""
    cluster = Cluster(folder, servers, "turn", programs=programs)
    found = {}
    try:
        for load in LOADS:
            clients, pipeline, reads = load
            command = cluster.client("bench", "--clients", str(clients), "--pipeline", str(pipeline))
            command += ["--reads", str(reads), "--duration", f"{seconds}s", "--warm-up", "500ms", "-o", "json"]
            found[load] = run(command)
    finally:
        cluster.end()
    return found


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"error: the bench failed: {done.stderr.strip()}")
    result = json.loads(done.stdout.splitlines()[-1])
    return result["ops_per_s"], result["server_cpu_us_per_op"]


def geometric_mean(ratios):
    return math.exp(statistics.fmean(math.log(ratio) for ratio in ratios))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--servers", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    options = parser.parse_args()
    rounds = []
    for number in range(1, options.rounds + 1):
        found = []
        for programs in (options.old, options.new, options.old):
            with tempfile.TemporaryDirectory(dir=os.environ.get("PAXOS_BENCH_DIR")) as folder:
                found.append(turn(programs, Path(folder), options.servers, options.seconds))
        rounds.append(found)
        rates = "; ".join(f"{name(load)}: " + " ".join(f"{one[load][0]:.0f}" for one in found) for load in LOADS)
        print(f"round {number} (operations/s: old, new, old): {rates}", flush=True)
    print("\n| load | new : old | old : old | server CPU per operation, new : old |\n|---|---|---|---|")
    changes, noises, costs = [], [], []
    for load in LOADS:
        of = [[one[load] for one in found] for found in rounds]
        # Against the mean of the two turns beside it.
        change = statistics.median(new[0] / ((a[0] + b[0]) / 2) for a, new, b in of)
        noise = statistics.median(b[0] / a[0] for a, _, b in of)
        cost = statistics.median(new[1] / ((a[1] + b[1]) / 2) for a, new, b in of)
        changes.append(change), noises.append(noise), costs.append(cost)
        print(f"| {name(load)} | {change:.3f} | {noise:.3f} | {cost:.3f} |")
    mean, noise = geometric_mean(changes), geometric_mean(noises)
    print(f"| geometric mean | {mean:.3f} | {noise:.3f} | {geometric_mean(costs):.3f} |\n")
    if abs(noise - 1) > NOISE_MAX:
        print("no result: the machine is too noisy; the old build differs from itself by more than 3 %")
        sys.exit(3)
    slower = mean < MEAN_MIN or min(changes) < LOAD_MIN
    print("slower" if slower else "not slower")
    sys.exit(1 if slower else 0)


if __name__ == "__main__":
    main()
