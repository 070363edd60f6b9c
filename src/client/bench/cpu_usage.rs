//! The CPU time and memory of processes on this machine, as reported by the kernel.

use std::fs;

use crate::client::cluster_status::ClusterStatus;
use crate::cluster::Cluster;

/// The servers' processes, if all of them are on this machine.
#[derive(Clone, Debug)]
pub(super) struct ServerProcesses {
    servers: Option<Vec<u32>>,
}

/// The resources that processes have used, in total or during a bench.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ProcessUsage {
    /// CPU time of this process, in seconds.
    pub(super) own_cpu: f64,
    /// CPU time of all servers together, in seconds, and the memory of the largest server, in bytes. None if they are
    /// not all on this machine.
    pub(super) servers: Option<(f64, u64)>,
}

impl ServerProcesses {
    /// Finds the processes of the servers that have answered.
    pub(super) fn of(cluster: &Cluster, cluster_status: &ClusterStatus) -> ServerProcesses {
        let is_here = |pid: u32| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&words).contains("paxos-server")
        };
        let pid = |status: &crate::net::ServerStatus| {
            let local = cluster.member(status.server).is_some_and(|member| member.client.ip().is_loopback());
            (local && is_here(status.pid)).then_some(status.pid)
        };
        let servers: Option<Vec<u32>> = cluster_status.statuses().map(pid).collect();
        ServerProcesses { servers: servers.filter(|pids| !pids.is_empty()) }
    }

    /// The resources used so far. A server that has ended no longer counts.
    pub(super) fn usage(&self) -> ProcessUsage {
        let servers = self.servers.as_ref().map(|pids| {
            let cpu = pids.iter().filter_map(|pid| cpu_seconds(&pid.to_string())).sum();
            (cpu, pids.iter().filter_map(|pid| memory_bytes(*pid)).max().unwrap_or(0))
        });
        ProcessUsage { own_cpu: cpu_seconds("self").unwrap_or(0.0), servers }
    }
}

impl ProcessUsage {
    /// The resources used between `before` and this moment.
    pub(super) fn since(&self, before: &ProcessUsage) -> ProcessUsage {
        let servers = self.servers.zip(before.servers).map(|(now, then)| ((now.0 - then.0).max(0.0), now.1));
        ProcessUsage { own_cpu: self.own_cpu - before.own_cpu, servers }
    }
}

/// CPU time of a process in user and kernel mode, in seconds.
fn cpu_seconds(process: &str) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The process name is in parentheses and may contain any character. After it come the state, the parent and so on;
    // the 12th and 13th of these fields are the clock ticks.
    let (_, behind) = stat.rsplit_once(')')?;
    let mut ticks = behind.split_whitespace().skip(11).map(str::parse::<u64>);
    let (user, kernel) = (ticks.next()?.ok()?, ticks.next()?.ok()?);
    Some((user + kernel) as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Resident memory of a process, in bytes.
fn memory_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cpu_time_and_memory_are_measured() {
        let before = cpu_seconds("self").unwrap();
        let pid = std::process::id();
        let memory = memory_bytes(pid).unwrap();
        let filled = std::hint::black_box(vec![1u8; 64 << 20]);
        while cpu_seconds("self").unwrap() <= before {
            std::hint::black_box(filled.iter().map(|byte| u64::from(*byte)).sum::<u64>());
        }
        assert!(memory_bytes(pid).unwrap() >= memory + (32 << 20), "64 MiB more are in use");
        assert_eq!(cpu_seconds("0"), None);
    }

    #[test]
    fn usage_is_a_difference_for_cpu_time_but_not_for_memory() {
        let (then, now) = (
            ProcessUsage { own_cpu: 1.0, servers: Some((5.0, 10)) },
            ProcessUsage { own_cpu: 1.5, servers: Some((7.0, 30)) },
        );
        assert_eq!(now.since(&then), ProcessUsage { own_cpu: 0.5, servers: Some((2.0, 30)) });
        assert_eq!(now.since(&ProcessUsage::default()).servers, None);
    }
}
