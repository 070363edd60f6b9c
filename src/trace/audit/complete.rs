//! What is there and what is missing: the servers of the cluster, their first lines, and the numbers of all lines.

use super::super::event::Event;
use super::super::parse::Run;
use super::super::text::Text;
use super::super::word::{Recovered, RestartMode};
use super::{Case, Rule};
use crate::protocol::Protocol;
use crate::role::{Server, Servers};

pub(super) fn check(case: &mut Case<'_>) {
    find_cluster(case);
    let gaps = find_gaps(case);
    for server in case.cluster.iter() {
        match has_all(case, server, gaps) {
            Ok(is_new) => {
                if is_new {
                    case.trusted.insert(server);
                }
            }
            Err((says, lines)) => case.unproven(Rule::Complete, &lines, says),
        }
    }
}

/// Whether the first server that says how the servers agree says that they wait for all.
pub(in crate::trace) fn is_two_phase_commit(run: &Run) -> bool {
    let protocols = run.lines.iter().filter_map(|entry| match &entry.line.event {
        Event::Boot { protocol: Some(protocol), .. } if entry.line.id.process.as_server().is_some() => Some(protocol),
        _ => None,
    });
    protocols.into_iter().next().is_some_and(|protocol| is_commit(Some(protocol)))
}

fn is_commit(protocol: Option<&Text>) -> bool {
    protocol.is_some_and(|protocol| protocol.as_str() == Some(Protocol::TwoPhaseCommit.name()))
}

/// All BOOT lines name the same cluster.
fn find_cluster(case: &mut Case<'_>) {
    let mut first: Option<usize> = None;
    for (at, entry) in case.run.lines.iter().enumerate() {
        let Event::Boot { cluster, protocol, .. } = &entry.line.event else { continue };
        if entry.line.id.process.as_server().is_none() {
            continue;
        }
        if is_commit(protocol.as_ref()) != is_two_phase_commit(case.run) {
            let says = "some servers ran Paxos and others two-phase commit: no rules fit both".into();
            case.unproven(Rule::Complete, &[at], says);
        }
        match first {
            Some(first) if *cluster != case.cluster => {
                let says = "two servers disagree on who belongs to the cluster: no majority can be counted".into();
                case.unproven(Rule::Complete, &[first, at], says);
            }
            Some(_) => {}
            None => (first, case.cluster) = (Some(at), *cluster),
        }
    }
    if first.is_none() {
        let says = "no server says in a BOOT line who belongs to the cluster: no majority can be counted".into();
        case.unproven(Rule::Complete, &[], says);
    }
}

/// Each process numbers its lines from 1 without a gap. Gives the servers where one is.
fn find_gaps(case: &mut Case<'_>) -> Servers {
    let mut gaps = Servers::NONE;
    for (process, lines) in case.run.by_process() {
        let mut expected = 1;
        for at in lines {
            let line = case.run.line(at);
            let says = match line.event {
                _ if line.id.n != expected => format!("{process}.{expected} should stand where {} does", line.id),
                Event::Lost { n } => format!("{process} could not write {n} lines"),
                _ => {
                    expected += 1;
                    continue;
                }
            };
            case.unproven(Rule::Complete, &[at], says);
            expected = line.id.n + 1;
            if let Some(server) = process.as_server() {
                gaps.insert(server);
            }
        }
    }
    gaps
}

/// Whether all lines of a server are there; if so, whether it knew nothing when they began.
fn has_all(case: &Case<'_>, server: Server, gaps: Servers) -> Result<bool, (String, Vec<usize>)> {
    let Some(lines) = case.by_server.get(&server) else {
        return Err((format!("there is no line of server {}", server.0), Vec::new()));
    };
    if gaps.contains(server) {
        // Said already.
        return Ok(false);
    }
    let mut first_boot = None;
    for at in lines {
        let Event::Boot { steps, accepted, promised, .. } = &case.run.line(*at).event else { continue };
        if steps.as_ref().is_some_and(|steps| steps.as_str() != Some("on")) {
            return Err((format!("server {} did not show protocol steps", server.0), vec![*at]));
        }
        let knew_nothing = accepted.unwrap_or(0) == 0 && promised.is_none_or(|promised| promised.0.is_none());
        first_boot.get_or_insert((*at, knew_nothing));
    }
    // A process may be killed before it writes its BOOT line; one of them at least must have written one.
    let Some((boot, knew_nothing)) = first_boot else {
        return Err((format!("server {} has no BOOT line", server.0), lines[..1].to_vec()));
    };
    let life = |at: usize| case.run.line(at).id.process.life();
    if life(lines[0]) == 1 || (life(lines[0]) == life(boot) && knew_nothing) {
        return Ok(true);
    }
    Err((format!("server {} has lived before: what it did then is in no line here", server.0), vec![boot]))
}

/// Lines which say that acceptors come back without their memory.
pub(super) fn unsafe_lines(run: &Run) -> Vec<usize> {
    let says_so = |event: &Event| {
        matches!(
            event,
            Event::Boot { restart: Some(RestartMode::Lost), .. } | Event::Restart { recovered: Recovered::Nothing, .. }
        )
    };
    (0..run.lines.len()).filter(|at| says_so(&run.line(*at).event)).collect()
}
