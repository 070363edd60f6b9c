//! Audit: proves from a run's lines alone that every rule was kept. It does not trust a server's claim if a line of
//! another process, or an earlier line of the same server, can refute it.
//!
//! A rule compares *claims* (a CHOSEN claims that a majority has accepted) with their *evidence* (the ACCEPTED lines of
//! those acceptors). A server writes the line to its file before it sends the message. So missing evidence means that
//! the claim is false, unless lines of that server may be missing too; then nothing is proved either way
//! ([`known_lines`]). An acceptance may be durable without a line, if the acceptor was killed in between. A later
//! PROMISE can report it.
//!
//! So a rule counts as broken on exact evidence only: lines that contradict each other whatever stood between them, or
//! a line that certainly was not written. If lines are removed from a run that kept the rules, the audit may no longer
//! prove it, but never reports a violation.

mod acceptors;
mod clients;
mod commits;
mod complete;
mod index;
mod inference;
mod known_lines;
mod learners;
mod proposals;
#[cfg(test)]
pub(super) mod script;
#[cfg(test)]
mod tests;
mod versions;

use std::fmt::{self, Display, Formatter, Write};

use super::histories::{Histories, RunHistory, maybe_several_dirs};
use super::parse::Run;
pub use complete::shows_all_requests;
pub(super) use complete::{Rules, rules_of};
use index::RunIndex;

/// A rule that a run must keep. Each has its own check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// All lines that the other rules rest on are present.
    Complete,
    /// An acceptor takes no part in a ballot below its promise, and forgets nothing that it accepted.
    Promise,
    /// A ballot has one owner, one PREPARE with one first slot, and at most one value for each slot.
    Ballot,
    /// A proposer has the promises of a majority, and proposes the safe value that they require.
    Adopt,
    /// Every value that is called chosen was accepted by a majority at one ballot.
    Majority,
    /// Two-phase commit: no server commits what another aborts.
    Atomic,
    /// Two-phase commit: a commit has the votes of all servers, and no server that has voted decides alone.
    Votes,
    /// No slot has two values, and no transaction has two effects, on any server.
    Agreement,
    /// Learners apply slots one after the other, with the same results.
    Apply,
    /// Each write takes effect at most once, and an acknowledged write exactly once.
    Once,
    /// Replies report what was applied.
    Reply,
    /// Real-time order: if a reply was sent before another request began, the first operation precedes the second in
    /// the log.
    RealTime,
}

impl Rule {
    /// The rule's name, as it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Complete => "complete",
            Rule::Promise => "promise",
            Rule::Ballot => "ballot",
            Rule::Adopt => "adopt",
            Rule::Majority => "majority",
            Rule::Atomic => "atomic",
            Rule::Votes => "votes",
            Rule::Agreement => "agreement",
            Rule::Apply => "apply",
            Rule::Once => "once",
            Rule::Reply => "reply",
            Rule::RealTime => "real-time",
        }
    }
}

/// What the evidence establishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuditVerdict {
    /// Every rule was kept.
    Proved,
    /// No rule was seen broken, but lines are missing, so nothing is proved.
    Unproven,
    /// A rule was broken.
    Violated,
}

impl AuditVerdict {
    /// The exit code of a command with this verdict.
    pub fn exit_code(self) -> u8 {
        match self {
            AuditVerdict::Proved => 0,
            AuditVerdict::Unproven => 6,
            AuditVerdict::Violated => 7,
        }
    }
}

/// A violation, or a missing proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule concerned.
    pub rule: Rule,
    /// Never [`AuditVerdict::Proved`].
    pub verdict: AuditVerdict,
    /// What is wrong, in a sentence.
    pub message: String,
    /// The lines that show it, by their index in the run.
    pub lines: Vec<usize>,
}

/// Numbers of checked items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditCounts {
    /// Lines read.
    pub lines: usize,
    /// Promises, refusals and acceptances that were compared with the acceptor's history.
    pub answers: usize,
    /// Proposals that were compared with their promises.
    pub proposals: usize,
    /// Slots that are called chosen.
    pub chosen: usize,
    /// Applied slots, counted once for each learner incarnation.
    pub applied: usize,
    /// Replies to clients that were compared with the log.
    pub replies: usize,
    /// Crashes of roles, and ends of processes before a restart.
    pub crashes: usize,
    /// Numbers of two-phase commit, if the run used that protocol.
    pub commits: Option<CommitCounts>,
    /// Number of histories, each checked by itself.
    pub histories: usize,
}

impl AuditCounts {
    /// Adds the counts of another history.
    fn add(&mut self, other: AuditCounts) {
        self.lines += other.lines;
        self.answers += other.answers;
        self.proposals += other.proposals;
        self.chosen += other.chosen;
        self.applied += other.applied;
        self.replies += other.replies;
        self.crashes += other.crashes;
        self.histories += other.histories;
        if let Some(CommitCounts { transactions, committed, votes, open }) = other.commits {
            let commits = self.commits.get_or_insert_default();
            commits.transactions += transactions;
            commits.committed += committed;
            commits.votes += votes;
            commits.open += open;
        }
    }
}

/// Numbers of checked items of two-phase commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitCounts {
    /// Transactions.
    pub transactions: usize,
    /// Committed transactions.
    pub committed: usize,
    /// Yes votes.
    pub votes: usize,
    /// Transactions that some participant has prepared and not ended.
    pub open: usize,
}

/// The result of an audit.
#[derive(Clone, Debug)]
pub struct Audit {
    /// Violations and missing proofs, sorted by verdict and rule.
    pub findings: Vec<Finding>,
    /// Numbers of checked items.
    pub counts: AuditCounts,
    /// Lines that state that acceptors restart without their stable storage.
    pub unsafe_lines: Vec<usize>,
}

impl Audit {
    /// Audits a run. If its lines belong to several histories, each is audited by itself.
    pub fn new(run: &Run) -> Audit {
        match Histories::of(run) {
            Histories::One => Audit::of_one(run),
            Histories::Several(parts) => Audit::of_several(&parts),
            Histories::Mixed(message, at) => Audit::of_one(run).into_mixed(message, at),
        }
    }

    /// Audits lines of one history. If lines of a server may belong to several data directories, only violations that
    /// the other servers' lines prove are reported.
    fn of_one(run: &Run) -> Audit {
        let doubtful = maybe_several_dirs(run);
        let mut audit = Audit::of_lines(run);
        if doubtful.is_empty() || audit.verdict() != AuditVerdict::Violated {
            return audit;
        }
        let is_sure =
            |at: &usize| run.line(*at).id.process.as_server().is_some_and(|server| !doubtful.contains(server));
        let sure: Vec<usize> = (0..run.lines.len()).filter(is_sure).collect();
        let mut proved = Audit::of_lines(&run.only(&sure)).findings;
        proved.retain(|finding| finding.verdict == AuditVerdict::Violated);
        proved.iter_mut().flat_map(|finding| &mut finding.lines).for_each(|line| *line = sure[*line]);
        audit.findings.retain(|finding| !proved.iter().any(|one| one.lines == finding.lines));
        let seems = format!(" (uncertain: lines of {doubtful} are missing that may show a new data directory)");
        audit.weaken(&seems);
        audit.findings.extend(proved);
        audit.sort();
        audit
    }

    fn of_lines(run: &Run) -> Audit {
        let mut index = RunIndex::new(run);
        complete::check(&mut index);
        match complete::find_rules(&mut index) {
            Rules::TwoPhaseCommit => commits::check(&mut index),
            Rules::Paxos => {
                acceptors::check(&mut index);
                proposals::check(&mut index);
                learners::check(&mut index);
                clients::check(&mut index);
                if index.complete_servers != index.cluster {
                    versions::check(&mut index);
                }
            }
            Rules::Unknown(_) => {}
        }
        let unsafe_lines = complete::unsafe_lines(run);
        let mut audit = Audit {
            findings: index.findings,
            counts: AuditCounts { lines: run.lines.len(), histories: 1, ..index.counts },
            unsafe_lines,
        };
        audit.sort();
        audit
    }

    fn of_several(parts: &[RunHistory]) -> Audit {
        let mut all = Audit { findings: Vec::new(), counts: AuditCounts::default(), unsafe_lines: Vec::new() };
        for (n, RunHistory { run, at }) in parts.iter().enumerate() {
            let audit = Audit::of_one(run);
            all.counts.add(audit.counts);
            all.unsafe_lines.extend(audit.unsafe_lines.iter().map(|line| at[*line]));
            all.findings.extend(audit.findings.into_iter().map(|finding| Finding {
                message: format!("in history {} of {}: {}", n + 1, parts.len(), finding.message),
                lines: finding.lines.iter().map(|line| at[*line]).collect(),
                ..finding
            }));
        }
        all.sort();
        all
    }

    /// The same findings for lines whose histories cannot be separated: violations become unproven.
    fn into_mixed(mut self, message: String, at: usize) -> Audit {
        self.weaken(" (uncertain: these lines are of more than one history)");
        self.findings.push(Finding { rule: Rule::Complete, verdict: AuditVerdict::Unproven, message, lines: vec![at] });
        self.sort();
        self
    }

    fn weaken(&mut self, why: &str) {
        for finding in self.findings.iter_mut().filter(|finding| finding.verdict == AuditVerdict::Violated) {
            finding.verdict = AuditVerdict::Unproven;
            finding.message.push_str(why);
        }
    }

    fn sort(&mut self) {
        self.findings.sort_by_key(|finding| (std::cmp::Reverse(finding.verdict), finding.rule));
    }

    /// The worst verdict of all findings.
    pub fn verdict(&self) -> AuditVerdict {
        self.findings.iter().map(|finding| finding.verdict).max().unwrap_or(AuditVerdict::Proved)
    }

    /// The audit as readable text, with the lines that show each finding.
    pub fn explain<'a>(&'a self, run: &'a Run) -> impl Display + 'a {
        AuditText { audit: self, run }
    }
}

/// Maximum number of findings shown for a rule, and of lines shown for a finding.
const SHOWN_MAX: usize = 5;

struct AuditText<'a> {
    audit: &'a Audit,
    run: &'a Run,
}

impl AuditText<'_> {
    fn lines(&self, lines: &[usize], f: &mut Formatter<'_>) -> fmt::Result {
        for at in lines.iter().take(SHOWN_MAX) {
            let entry = &self.run.lines[*at];
            writeln!(f, "    {}:{}: {}", entry.file, entry.number, entry.line)?;
        }
        if lines.len() > SHOWN_MAX { writeln!(f, "    and {} more lines", lines.len() - SHOWN_MAX) } else { Ok(()) }
    }
}

impl Display for AuditText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Audit { findings, counts, unsafe_lines } = self.audit;
        if !unsafe_lines.is_empty() {
            writeln!(
                f,
                "UNSAFE: in this run acceptors restart without their stable storage; Paxos guarantees nothing then"
            )?;
            self.lines(&unsafe_lines[..1], f)?;
        }
        for alike in findings.chunk_by(|a, b| (a.verdict, a.rule) == (b.verdict, b.rule)) {
            let Finding { rule, verdict, .. } = alike[0];
            let word = if verdict == AuditVerdict::Violated { "VIOLATION" } else { "not provable" };
            for finding in alike.iter().take(SHOWN_MAX) {
                writeln!(f, "{word} ({}): {}", rule.name(), finding.message)?;
                self.lines(&finding.lines, f)?;
            }
            if alike.len() > SHOWN_MAX {
                writeln!(f, "{word} ({}): {} more of this kind", rule.name(), alike.len() - SHOWN_MAX)?;
            }
        }
        let AuditCounts { lines, answers, proposals, chosen, applied, replies, crashes: deaths, commits, histories } =
            counts;
        if *histories > 1 {
            writeln!(
                f,
                "the data directories were created anew: these lines are of {histories} histories, each checked separately"
            )?;
        }
        if let Some(CommitCounts { transactions, committed, votes, open }) = commits {
            writeln!(
                f,
                "checked {lines} lines of two-phase commit: {transactions} transactions, {committed} committed, {votes} of \
                 {answers} votes yes, {applied} acknowledgements, {replies} replies to clients, {deaths} crashes; {open} transactions \
                 are still in doubt at the end"
            )?;
        } else {
            writeln!(
                f,
                "checked {lines} lines: {answers} acceptor replies, {proposals} proposals, {chosen} chosen slots, \
                 {applied} applications, {replies} replies to clients, {deaths} crashes"
            )?;
        }
        f.write_str("verdict: ")?;
        f.write_str(match self.audit.verdict() {
            AuditVerdict::Proved if unsafe_lines.is_empty() => "PROVED, every rule was kept",
            AuditVerdict::Proved => "every rule was kept, but only by chance: this run was UNSAFE",
            AuditVerdict::Unproven => "NOT PROVABLE, lines are missing; no violation was found",
            AuditVerdict::Violated => "VIOLATION, a rule was broken",
        })?;
        f.write_char('\n')
    }
}
