#!/usr/bin/env python3
"""Compares this store with etcd: five servers of each on this machine, every acknowledged write on disk for both.

    benches/against-etcd/compare.py --etcd /path/to/etcd [--rounds 5] [--protocol multi-paxos]

Needs Python 3 and cargo, and for etcd's load generator (the package beside this file) protoc, Debian's
protobuf-compiler. etcd 3.5 is at https://github.com/etcd-io/etcd/releases.

A round starts one system's servers on an empty folder, measures every cell, ends them, and does the same with the other;
the next round begins with the other one. What is printed is the median of each side and the median of the rounds'
ratios: on a shared machine figures drift from minute to minute, and only what was measured together can be compared.
Both generators run on one thread of this machine, beside the servers. What each costs is in the table: etcd's client
speaks gRPC and costs several times as much as ours, which favours us a little; the servers' CPU a request does not
depend on it.

With --gap each round ends with the death of the leader, and ours also with one that falls silent while its connections
stand, as in a partition. With --lab, for our servers alone, follow what one slow disk costs (20 ms more for each sync of
one follower), what many requests under way on each connection bring, and what basic-paxos does when the clients of two
servers make their proposers duel.

All loads go to the leader, where both systems are fastest. Everything ends by itself; only what was started here is ended.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
KEYS = 10_000
VALUE_SIZE = 100
READY_SECONDS = 30

# name: clients, reads in a hundred, connections (None: one a client)
CELLS = {
    "put, 1 client": (1, 0, None),
    "put, 64 clients": (64, 0, None),
    "put, 256 clients": (256, 0, None),
    "get, 1 client": (1, 100, None),
    "get, 64 clients": (64, 100, None),
    "get, 256 clients": (256, 100, None),
    "half and half, 64 clients": (64, 50, None),
    "put, 64 under way over 4 connections": (64, 0, 4),
}


def free_ports(count):
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def cpu_seconds(pid):
    try:
        behind = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(behind[11]) + int(behind[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid):
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def machine_busy_seconds():
    fields = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (fields[0] + fields[1] + fields[2] + fields[5] + fields[6]) / os.sysconf("SC_CLK_TCK")


def run(command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} has failed:\n{done.stdout}{done.stderr}")
    return done.stdout


class System:
    """Servers of one kind in a folder of their own."""

    def __init__(self, options, folder):
        self.options, self.folder = options, Path(folder)
        self.processes = []

    def spawn(self, name, command):
        log = open(self.folder / f"{name}.log", "ab")
        command = [str(word) for word in command]
        self.processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        log.close()

    def stop(self):
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
        self.processes = []

    def kill(self, at):
        self.processes[at].send_signal(signal.SIGKILL)
        self.processes[at].wait()

    def measure(self, cell):
        """One cell; adds what the servers have used, and what else ran on the machine."""
        servers = [process.pid for process in self.processes]
        before = sum(map(cpu_seconds, servers)), machine_busy_seconds(), os.times()
        began = time.time()
        found = self.load(*CELLS[cell])
        took = time.time() - began
        after = sum(map(cpu_seconds, servers)), machine_busy_seconds(), os.times()
        children = after[2].children_user + after[2].children_system - before[2].children_user - before[2].children_system
        found["foreign"] = (after[1] - before[1] - (after[0] - before[0]) - children) / took
        found["rss_mb"] = max(map(memory_mb, servers))
        return found


class Etcd(System):
    name = "etcd"

    def start(self):
        count = self.options.servers
        ports = free_ports(2 * count)
        self.clients = [f"http://127.0.0.1:{port}" for port in ports[:count]]
        self.peers = [f"http://127.0.0.1:{port}" for port in ports[count:]]
        for at in range(count):
            self.start_one(at)

    def start_one(self, at):
        members = ",".join(f"s{n}={peer}" for n, peer in enumerate(self.peers))
        self.spawn(f"etcd-{at}", [
            self.options.etcd, "--name", f"s{at}", "--data-dir", self.folder / f"etcd-{at}",
            "--listen-client-urls", self.clients[at], "--advertise-client-urls", self.clients[at],
            "--listen-peer-urls", self.peers[at], "--initial-advertise-peer-urls", self.peers[at],
            "--initial-cluster", members, "--initial-cluster-state", "new", "--log-level", "error",
        ])

    def generator(self, *words):
        return json.loads(run([self.options.etcd_load, *words]) or "null")

    def first_write(self):
        return self.generator("--endpoints", ",".join(self.clients), "--seconds", READY_SECONDS, "first")["first_ms"]

    def leader(self):
        """By the gateway that every etcd server has for its status; the load itself is gRPC."""
        import urllib.request
        deadline = time.time() + READY_SECONDS
        while time.time() < deadline:
            for at, client in enumerate(self.clients):
                request = urllib.request.Request(f"{client}/v3/maintenance/status", b"{}")
                try:
                    with urllib.request.urlopen(request, timeout=1) as answer:
                        status = json.load(answer)
                except OSError:
                    continue
                if status.get("leader") == status["header"]["member_id"]:
                    return at
            time.sleep(0.1)
        sys.exit("etcd has no leader")

    def prepare(self):
        self.at = self.clients[self.leader()]
        run([self.options.etcd_load, "--endpoints", self.at, "--keys", KEYS, "--value-size", VALUE_SIZE, "fill"])

    def load(self, clients, reads, connections):
        words = ["--endpoints", self.at, "--clients", clients, "--keys", KEYS, "--value-size", VALUE_SIZE]
        words += ["--seconds", self.options.seconds, "load", "--reads", reads, "--warm-up", self.options.warm_up]
        if connections:
            words += ["--connections", connections]
        words += ["--pids", ",".join(str(process.pid) for process in self.processes)]
        return self.generator(*words)

    def gap(self):
        leader = self.leader()
        words = [self.options.etcd_load, "--endpoints", ",".join(self.clients), "--clients", 8, "--seconds", 8, "gap"]
        load = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True)
        time.sleep(3)
        self.kill(leader)
        return json.loads(load.communicate(timeout=60)[0])["longest_gap_ms"]


class Ours(System):
    name = "paxos-kv"

    def start(self):
        count = self.options.servers
        ports = free_ports(2 * count)
        self.file = self.folder / "cluster.toml"
        text = 'cluster = "compare"\n'
        for n in range(count):
            text += f'[[server]]\nid = {n + 1}\npeer = "127.0.0.1:{ports[n]}"\nclient = "127.0.0.1:{ports[count + n]}"\n'
        self.file.write_text(text)
        for n in range(1, count + 1):
            self.start_one(n)

    def start_one(self, n, *more):
        self.spawn(f"server-{n}", [
            self.options.bin / "paxos-server", "--id", n, "--cluster", self.file, "--data", self.folder / f"data-{n}",
            "--protocol", self.options.protocol, "--steps", "off", "--quiet", *more,
        ])

    def start_again(self, at, *more):
        """A server's process ends and comes back with these options."""
        self.kill(at)
        self.start_one(at + 1, *more)
        self.processes[at] = self.processes.pop()

    def client(self, *words):
        return run([self.options.bin / "paxos-client", "--cluster", self.file, *words])

    def first_write(self):
        began = time.time()
        # It tries one server after the other until one acknowledges the write.
        run([self.options.bin / "paxos-client", "--cluster", self.file, "--timeout", f"{READY_SECONDS}s", "put", "first", "x"])
        return (time.time() - began) * 1e3

    def prepare(self):
        self.client("bench", "--clients", 1, "--reads", 100, "--duration", "100ms", "--warm-up", "0ms", "--keys", KEYS)

    def load(self, clients, reads, connections, *more):
        words = ["bench", "-o", "json", *(more or ["--server", self.leader() + 1])]
        words += ["--reads", reads, "--keys", KEYS, "--value-size", VALUE_SIZE]
        words += ["--duration", f"{self.options.seconds}s", "--warm-up", f"{self.options.warm_up}s"]
        if connections:
            words += ["--clients", connections, "--pipeline", clients // connections]
        else:
            words += ["--clients", clients]
        return json.loads(self.client(*words))

    def leader(self):
        """Which one leads; the first, where the protocol has no leader."""
        deadline = time.time() + READY_SECONDS
        while time.time() < deadline:
            said = self.client("status")
            leads = re.search(r"^leader: server (\d+),", said, re.MULTILINE)
            if leads or self.options.protocol != "multi-paxos":
                return int(leads[1]) - 1 if leads else 0
            time.sleep(0.02)
        sys.exit("error: the cluster has no leader")

    def gap(self):
        """The leader dies; its own clients go to others."""
        leader = self.leader()
        return self.gap_when(leader, lambda: self.kill(leader))

    def silent_gap(self):
        """The leader says nothing any more, and its connections stand; the clients are at another server."""
        leader = self.leader()
        at = next(at for at, process in enumerate(self.processes) if at != leader and process.poll() is None)
        gap = self.gap_when(at, lambda: self.processes[leader].send_signal(signal.SIGSTOP))
        self.kill(leader)
        return gap

    def gap_when(self, at, happens):
        words = [self.options.bin / "paxos-client", "--cluster", self.file, "bench", "--clients", 8, "--reads", 0]
        words += ["--duration", "8s", "--warm-up", "0ms", "--server", at + 1]
        load = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        time.sleep(3)
        happens()
        said = load.communicate(timeout=60)[0]
        line = next(line for line in said.splitlines() if line.startswith("longest"))
        number, unit = line.split()[1:3]
        return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def one_round(kind, options, cells):
    """Starts, measures and ends one system; gives what each cell brought."""
    folder = tempfile.mkdtemp(prefix=f"compare-{kind.name}-", dir=options.dir)
    system = kind(options, folder)
    try:
        system.start()
        found = {"from start to the first acknowledged write": {"ms": system.first_write()}}
        system.prepare()
        for cell in cells:
            found[cell] = system.measure(cell)
        if options.gap:
            found["longest gap of writes after kill -9 of the leader"] = {"ms": system.gap()}
        if options.gap and kind is Ours and options.servers >= 5:
            found["longest gap of writes after the leader fell silent"] = {"ms": system.silent_gap()}
        return found
    finally:
        system.stop()
        shutil.rmtree(folder, ignore_errors=True)


def lab(options):
    """What our servers do in three cases that have nothing to do with etcd."""
    def run_one(protocol, work):
        folder = tempfile.mkdtemp(prefix="compare-lab-", dir=options.dir)
        system = Ours(argparse.Namespace(**{**vars(options), "protocol": protocol}), folder)
        try:
            system.start()
            system.first_write()
            system.prepare()
            return work(system)
        finally:
            system.stop()
            shutil.rmtree(folder, ignore_errors=True)

    def rate(system, *load):
        return system.load(*load)["ops_per_s"]

    def slow_disk(system):
        before = rate(system, 64, 0, None)
        system.start_again((system.leader() + 1) % len(system.processes), "--lab", "--sync-delay", "20ms")
        time.sleep(1)
        return rate(system, 64, 0, None) / before

    def pipeline(system):
        return rate(system, 64 * 16, 0, 64) / rate(system, 64, 0, None)

    def duel(system):
        """One server's clients, and then two servers' clients against each other."""
        found = system.load(16, 0, None), system.load(16, 0, None, "--servers", "1,2")
        return [[one[name] for name in ("ops_per_s", "p50_us", "p99_us", "server_cpu_us_per_op")] for one in found]

    of = {work.__name__: [run_one(protocol, work) for _ in range(options.rounds)]
          for protocol, work in (("multi-paxos", slow_disk), ("multi-paxos", pipeline), ("basic-paxos", duel))}
    print(f"- put, 64 clients, one follower's disk 20 ms slower: {median(of['slow_disk']):.2f} of the throughput without")
    print(f"- put, 64 clients with 16 under way each: {median(of['pipeline']):.1f} times that of 64 with one")
    for name, at in (("basic-paxos, put, 16 clients of one server", 0), ("basic-paxos, put, 16 clients of two servers", 1)):
        ops, p50, p99, cpu = (median(found[at][n] for found in of["duel"]) for n in range(4))
        print(f"- {name}: {ops:,.0f}/s, {p50 / 1e3:.2f} ms, {p99 / 1e3:.2f} ms, {cpu:.0f} us of server CPU an op")


def median(values):
    return statistics.median(values)


def table(rounds, cells):
    """Medians, and medians of the rounds' ratios, as a Markdown table."""
    def of(side, cell, name):
        return [pair[side][cell][name] for pair in rounds]

    def ratio(cell, name):
        return median(ours / max(theirs, 1e-9) for ours, theirs in zip(of(0, cell, name), of(1, cell, name)))

    print("| work | ours: ops/s, p50, p99 | etcd: ops/s, p50, p99 | throughput | p50 | p99 | server CPU an op |")
    print("|---|---|---|---|---|---|---|")
    for cell in cells:
        sides = []
        for side in (0, 1):
            rate, p50, p99 = (median(of(side, cell, name)) for name in ("ops_per_s", "p50_us", "p99_us"))
            sides.append(f"{rate:,.0f}, {p50 / 1e3:.2f} ms, {p99 / 1e3:.2f} ms")
        cpu = [median(of(side, cell, "server_cpu_us_per_op")) for side in (0, 1)]
        print(
            f"| {cell} | {sides[0]} | {sides[1]} | {ratio(cell, 'ops_per_s'):.2f} | {ratio(cell, 'p50_us'):.2f} "
            f"| {ratio(cell, 'p99_us'):.2f} | {cpu[0]:.0f} : {cpu[1]:.0f} us, {ratio(cell, 'server_cpu_us_per_op'):.2f} |"
        )
    print()
    for single in [name for name in rounds[0][0] if name not in cells]:
        theirs = f", etcd {median(of(1, single, 'ms')):.0f} ms" if single in rounds[0][1] else ""
        print(f"- {single}: ours {median(of(0, single, 'ms')):.0f} ms (at most {max(of(0, single, 'ms')):.0f}){theirs}")
    memory = [max(pair[side][cell]["rss_mb"] for pair in rounds for cell in cells) for side in (0, 1)]
    print(f"- memory of the largest server: ours {memory[0]:.0f} MiB, etcd {memory[1]:.0f} MiB")
    foreign = max(pair[side][cell]["foreign"] for pair in rounds for side in (0, 1) for cell in cells)
    print(f"- at most {foreign:.2f} cores were used by anything else")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--etcd", required=True, type=Path, help="the program etcd")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each cell is measured")
    parser.add_argument("--warm-up", type=float, default=0.7)
    parser.add_argument("--servers", type=int, default=5)
    parser.add_argument("--protocol", default="multi-paxos")
    parser.add_argument("--cells", help="parts of the names of cells, as in 'put, 64;get'")
    parser.add_argument("--dir", help="where the servers' folders go: on the disk in question [default: the temporary one]")
    parser.add_argument("--gap", action="store_true", help="also kill the leader at the end of each round")
    parser.add_argument("--lab", action="store_true", help="also what our servers do beside a slow disk, with pipelines, in duels")
    parser.add_argument("--no-build", action="store_true", help="take the programs as they are")
    parser.add_argument("--bin", type=Path, default=ROOT / "target/release", help="where paxos-server and paxos-client are")
    parser.add_argument("--etcd-load", type=Path, default=HERE / "target/release/etcd-load")
    options = parser.parse_args()
    # Whoever ends this script ends the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not options.no_build:
        for package in (ROOT, HERE):
            subprocess.run(["cargo", "build", "--release", "--bins"], cwd=package, check=True)
    wanted = options.cells.split(";") if options.cells else [""]
    cells = [cell for cell in CELLS if any(part in cell for part in wanted)]
    version = run([options.etcd, "--version"]).splitlines()[0]
    print(f"{version}; {options.servers} servers, {options.protocol}, {os.cpu_count()} cores, {options.rounds} rounds\n", flush=True)
    rounds = []
    for n in range(options.rounds):
        found = {}
        for kind in (Ours, Etcd) if n % 2 == 0 else (Etcd, Ours):
            found[kind] = one_round(kind, options, cells)
        rounds.append((found[Ours], found[Etcd]))
        for cell in cells:
            ours, theirs = (found[kind][cell] for kind in (Ours, Etcd))
            print(
                f"round {n + 1}  {cell:<38} ours {ours['ops_per_s']:>9,.0f}  etcd {theirs['ops_per_s']:>8,.0f}  "
                f"foreign {ours['foreign']:.2f} {theirs['foreign']:.2f}",
                flush=True,
            )
    print()
    table(rounds, cells)
    if options.lab:
        lab(options)


if __name__ == "__main__":
    main()
