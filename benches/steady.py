#!/usr/bin/env python3
"""Measures the disk space, memory and latency of servers under a steady load of overwrites for minutes.

    benches/steady.py [--minutes 10] [--rate 2000] [--servers 5]      disk and memory under a steady load
    benches/steady.py --pairs 6                                       latencies with and without checkpoints, in turn

Needs Python 3 and cargo. It starts its own servers on empty directories (under PAXOS_BENCH_DIR, else the system's temporary
directory) with default journal files and checkpoints, overwrites 10,000 keys in an open loop, and stops the servers.

The first form samples all servers and prints the largest data directory and the largest memory of each half minute. Both
must stay flat once the first checkpoints are made. If the last third of the time needs more disk than the second third by
more than a journal file, or more memory by more than a tenth, it prints "NOT flat" and the exit code is 1.

The second form runs two clusters at once and gives the load to each in turn, so that both run on the same machine: one
makes a checkpoint every 2,000 slots, the other makes none. It prints the medians over all pairs.
"""

import argparse
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / "target" / "release"
KEYS = 10_000
VALUE_SIZE = 100
READY_SECONDS = 30
SAMPLE_SECONDS = 5
ROW_SECONDS = 30
JOURNAL_FILE_BYTES = 16 << 20
NEVER = "1000000000"


def free_ports(count):
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


class Cluster:
    def __init__(self, folder, servers, name, *arguments, programs=None):
        self.programs = programs or BIN
        self.folder = folder / name
        self.folder.mkdir()
        self.file = self.folder / "cluster.toml"
        ports = free_ports(2 * servers)
        rows = [
            f'[[server]]\nid = {n}\npeer = "127.0.0.1:{ports[2 * n - 2]}"\nclient = "127.0.0.1:{ports[2 * n - 1]}"\n'
            for n in range(1, servers + 1)
        ]
        self.file.write_text(f'cluster = "{name}"\n' + "".join(rows))
        self.ids = range(1, servers + 1)
        self.processes = [self.start(n, arguments) for n in self.ids]
        self.await_ready()

    def start(self, n, arguments):
        command = [self.programs / "paxos-server", "--id", str(n), "--cluster", self.file, "--data", self.data(n), "--quiet"]
        command += ["--steps", "off", "--log-dir", self.folder, *arguments]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def data(self, n):
        return self.folder / f"server-{n}"

    def client(self, *arguments):
        return [self.programs / "paxos-client", "--cluster", self.file, *arguments]

    def await_ready(self):
        end = time.monotonic() + READY_SECONDS
        while subprocess.run(self.client("put", "ready", "yes"), capture_output=True).returncode != 0:
            if time.monotonic() > end:
                sys.exit("error: the servers do not become ready; see their logs in " + str(self.folder))

    def bench(self, seconds, rate):
        command = self.client("bench", "--duration", f"{seconds}s", "--rate", str(rate), "--reads", "0")
        command += ["--keys", str(KEYS), "--value-size", str(VALUE_SIZE), "-o", "json"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def disk(self):
        def size(folder):
            total = 0
            for at, _, names in os.walk(folder):
                for name in names:
                    try:
                        total += (Path(at) / name).stat().st_blocks * 512
                    except FileNotFoundError:
                        pass
            return total

        return max(size(self.data(n)) for n in self.ids)

    def memory(self):
        def resident(process):
            text = Path(f"/proc/{process.pid}/status").read_text()
            return int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]) << 10

        return max(resident(process) for process in self.processes)

    def checkpoints(self):
        return (self.folder / "server-1.log").read_text().count(" SNAPSHOT ")

    def end(self):
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait()


def mib(count):
    return f"{count / (1 << 20):.1f}"


def steady(options, folder):
    cluster = Cluster(folder, options.servers, "steady")
    try:
        begun = time.monotonic()
        load = cluster.bench(int(options.minutes * 60), options.rate)
        print("| after | largest data directory | largest memory |\n|---|---|---|")
        samples, row = [], []
        while load.poll() is None:
            time.sleep(SAMPLE_SECONDS)
            row.append((cluster.disk(), cluster.memory()))
            passed = time.monotonic() - begun
            if passed >= (len(samples) + 1) * ROW_SECONDS:
                samples.append((max(disk for disk, _ in row), max(memory for _, memory in row)))
                row = []
                print(f"| {passed:.0f} s | {mib(samples[-1][0])} MiB | {mib(samples[-1][1])} MiB |", flush=True)
        result = json.loads(load.communicate()[0])
        checkpoints = cluster.checkpoints()
    finally:
        cluster.end()
    print(f"\n{json.dumps(result)}\n\n{checkpoints} checkpoints of server 1")
    third = len(samples) // 3
    if third == 0:
        return print("too few samples to tell whether it is flat")
    most = lambda part, of: max(sample[of] for sample in part)
    second, last = samples[third : 2 * third], samples[2 * third :]
    grown = most(last, 0) > most(second, 0) + JOURNAL_FILE_BYTES or most(last, 1) > 1.1 * most(second, 1)
    print("NOT flat" if grown else "flat")
    return sys.exit(1 if grown else 0)


def pairs(options, folder):
    often = Cluster(folder, options.servers, "often", "--checkpoint-slots", "2000")
    never = Cluster(folder, options.servers, "never", "--checkpoint-slots", NEVER)
    found = {"often": [], "never": []}
    try:
        for pair in range(options.pairs):
            turns = [("often", often), ("never", never)]
            for name, cluster in turns if pair % 2 == 0 else reversed(turns):
                before = cluster.checkpoints()
                result = json.loads(cluster.bench(options.seconds, options.rate).communicate()[0])
                made = cluster.checkpoints() - before
                found[name].append(result)
                print(f"{name}: {made} checkpoints, {json.dumps(result)}", flush=True)
    finally:
        often.end()
        never.end()
    numbers = [key for key, value in found["often"][0].items() if isinstance(value, (int, float))]
    print("\n| | with a checkpoint every 2,000 slots | without |\n|---|---|---|")
    for key in numbers:
        with_them, without = (statistics.median(run[key] for run in found[name]) for name in ("often", "never"))
        print(f"| {key} | {with_them} | {without} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=int, default=2_000, help="writes per second")
    parser.add_argument("--servers", type=int, default=5)
    parser.add_argument("--pairs", type=int, help="number of pairs in which latencies are measured")
    parser.add_argument("--bin", type=Path, help="directory of built programs [default: build those of this repository]")
    parser.add_argument("--seconds", type=int, default=10, help="duration of each half of a pair in seconds")
    options = parser.parse_args()
    global BIN
    if options.bin:
        BIN = options.bin.resolve()
    else:
        subprocess.run(["cargo", "build", "--release", "--bins", "--quiet"], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory(dir=os.environ.get("PAXOS_BENCH_DIR")) as folder:
        (pairs if options.pairs else steady)(options, Path(folder))


if __name__ == "__main__":
    main()
