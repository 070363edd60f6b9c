//! Completeness: the servers of the cluster, their first lines, and the numbers of all lines.

use std::collections::BTreeMap;

use super::super::event::Event;
use super::super::line::{Line, Speaker};
use super::super::parse::Run;
use super::super::values::{RecoveredFrom, RestartMode};
use super::{Rule, RunIndex};
use crate::protocol::Protocol;
use crate::role::{ServerId, ServerSet};

pub(super) fn check(index: &mut RunIndex<'_>) {
    let is_agreed = find_cluster(index);
    let gaps = find_gaps(index).iter().chain(find_named(index).iter()).collect();
    for server in index.cluster.iter() {
        match has_all(index, server, gaps) {
            Ok(is_new) => {
                if is_new {
                    index.complete_servers.insert(server);
                }
            }
            Err((message, lines)) => index.unproven(Rule::Complete, &lines, message),
        }
    }
    let here: ServerSet = index.by_server.keys().copied().collect();
    index.knows_clock &= index.cluster.without(here).is_empty();
    if !is_agreed {
        // No majority can be counted among servers that disagree.
        index.cluster = ServerSet::NONE;
    }
}

/// The rules that apply to the lines of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::trace) enum Rules {
    /// One log, agreed upon by Paxos.
    Paxos,
    /// One store on each server, with transactions committed in two phases.
    TwoPhaseCommit,
    /// None: no server's line shows the protocol, or this line shows another one than the lines before it.
    Unknown(Option<usize>),
}

/// The protocol of the servers, by their BOOT lines and the roles that they have.
pub(in crate::trace) fn rules_of(run: &Run) -> Rules {
    let mut rules = Rules::Unknown(None);
    for (at, entry) in run.lines.iter().enumerate() {
        if let Some(shown) = shown_by(&entry.line) {
            if !matches!(rules, Rules::Unknown(_)) && rules != shown {
                return Rules::Unknown(Some(at));
            }
            rules = shown;
        }
    }
    rules
}

fn shown_by(line: &Line) -> Option<Rules> {
    line.id.process.as_server()?;
    match (&line.event, line.role) {
        (Event::Boot { protocol: Some(protocol), .. }, _) => {
            let is_commit = protocol.as_str() == Some(Protocol::TwoPhaseCommit.name());
            Some(if is_commit { Rules::TwoPhaseCommit } else { Rules::Paxos })
        }
        (_, Speaker::Coordinator | Speaker::Participant) => Some(Rules::TwoPhaseCommit),
        (_, Speaker::Proposer | Speaker::Acceptor | Speaker::Learner) => Some(Rules::Paxos),
        _ => None,
    }
}

/// Reads the cluster from the BOOT lines. Returns whether all of them name the same one.
fn find_cluster(index: &mut RunIndex<'_>) -> bool {
    let mut is_agreed = true;
    let mut first: Option<usize> = None;
    for (at, entry) in index.run.lines.iter().enumerate() {
        let Event::Boot { cluster, .. } = &entry.line.event else { continue };
        if entry.line.id.process.as_server().is_none() {
            continue;
        }
        match first {
            Some(first) if *cluster != index.cluster => {
                let message = "two servers name different members of the cluster: no majority can be counted".into();
                index.unproven(Rule::Complete, &[first, at], message);
                is_agreed = false;
            }
            Some(_) => {}
            None => (first, index.cluster) = (Some(at), *cluster),
        }
    }
    if first.is_none() {
        let message = "no BOOT line names the members of the cluster: no majority can be counted".into();
        index.unproven(Rule::Complete, &[], message);
    }
    is_agreed
}

/// The rules for the rest of the audit; a run without rules is unproven.
pub(super) fn find_rules(index: &mut RunIndex<'_>) -> Rules {
    let rules = rules_of(index.run);
    if let Rules::Unknown(other) = rules {
        let message = match other {
            Some(_) => "some servers ran Paxos and others two-phase commit: no rules fit both",
            None => "no line shows which protocol the servers ran: no rules can be checked",
        };
        index.unproven(Rule::Complete, other.as_slice(), message.into());
    }
    rules
}

/// Each process numbers its lines from 1 without a gap. Returns the servers with a gap.
fn find_gaps(index: &mut RunIndex<'_>) -> ServerSet {
    let mut gaps = ServerSet::NONE;
    for (process, lines) in index.run.by_process() {
        let mut expected = 1;
        for at in lines {
            let line = index.run.line(at);
            let message = match line.event {
                _ if line.id.n != expected => format!("expected line {process}.{expected}, found {}", line.id),
                Event::Lost { n } => format!("{process} could not write {n} lines"),
                _ => {
                    expected += 1;
                    continue;
                }
            };
            index.unproven(Rule::Complete, &[at], message);
            index.knows_clock = false;
            expected = line.id.n.saturating_add(1);
            if let Some(server) = process.as_server() {
                gaps.insert(server);
            }
        }
    }
    gaps
}

/// A line is in its file before its message is sent, so a line that another line names was written. Returns the servers
/// whose named lines are absent.
fn find_named(index: &mut RunIndex<'_>) -> ServerSet {
    let here = index.run.by_id();
    let mut gone: BTreeMap<ServerId, Vec<usize>> = BTreeMap::new();
    for at in (0..index.run.lines.len()).filter(|at| index.is_claim(*at)) {
        let Some(re) = &index.run.line(at).parent else { continue };
        if let Some(server) = re.process.as_server().filter(|server| index.by_server.contains_key(server))
            && !here.contains_key(re)
        {
            gone.entry(server).or_default().push(at);
        }
    }
    for (server, lines) in &gone {
        let names = index.run.line(lines[0]);
        let re = names.parent.as_ref().map(ToString::to_string).unwrap_or_default();
        let more = if lines.len() > 1 {
            format!("; other lines of {server} that lines name are missing, too")
        } else {
            String::new()
        };
        let message = format!("{} was caused by {re}, which is missing{more}", names.id);
        index.unproven(Rule::Complete, lines, message);
        index.knows_clock = false;
    }
    gone.into_keys().collect()
}

/// Whether all lines of a server are present, as far as that is visible. If so, whether they begin with its first one.
fn has_all(index: &RunIndex<'_>, server: ServerId, gaps: ServerSet) -> Result<bool, (String, Vec<usize>)> {
    let Some(lines) = index.by_server.get(&server) else {
        return Err((format!("there is no line of server {}", server.0), Vec::new()));
    };
    if gaps.contains(server) {
        // Already reported.
        return Ok(false);
    }
    let mut first_boot = None;
    for at in lines {
        let Event::Boot { steps, accepted, promised, .. } = &index.run.line(*at).event else { continue };
        if steps.as_ref().is_some_and(|steps| steps.as_str() != Some("on")) {
            return Err((format!("server {} did not record protocol steps", server.0), vec![*at]));
        }
        let knew_nothing = accepted.unwrap_or(0) == 0 && promised.is_none_or(|promised| promised.0.is_none());
        first_boot.get_or_insert((*at, knew_nothing));
    }
    // A process may be killed before it writes its BOOT line, but at least one must have written it.
    let Some((boot, knew_nothing)) = first_boot else {
        return Err((format!("server {} has no BOOT line", server.0), lines[..1].to_vec()));
    };
    let life = |at: usize| index.run.line(at).id.process.incarnation();
    if life(lines[0]) == 1 {
        return Ok(lines.iter().all(|at| index.known.is_whole(&index.run.line(*at).id.process)));
    }
    // The process may have been killed before it wrote anything; its acceptor had done nothing by then.
    if life(lines[0]) == life(boot) && knew_nothing {
        return Ok(false);
    }
    Err((format!("server {} had earlier incarnations, whose lines are missing", server.0), vec![boot]))
}

/// Whether the lines contain every request that any server received.
pub fn shows_all_requests(run: &Run) -> bool {
    let mut index = RunIndex::new(run);
    find_cluster(&mut index)
        && !index.cluster.is_empty()
        && index.cluster.iter().all(|server| index.known.has_all(server))
}

/// Lines which state that acceptors restart without their stable storage.
pub(super) fn unsafe_lines(run: &Run) -> Vec<usize> {
    let says_so = |event: &Event| {
        matches!(
            event,
            Event::Boot { restart: Some(RestartMode::Lost), .. }
                | Event::Restart { recovered: RecoveredFrom::Nothing, .. }
        )
    };
    (0..run.lines.len()).filter(|at| says_so(&run.line(*at).event)).collect()
}
