//! A second check in addition to the audit: a search on the same log lines that does not use slots.
//!
//! The audit proves the order of replies by the slots in them (the *slot witness*). The search asks only whether some
//! order explains what the clients saw. The two rest on different evidence, so a bug in one of them shows as
//! disagreement, and disagreement is a failure.

use std::time::{Duration, Instant};

use super::{LinearizabilityVerdict, check_run};
use crate::trace::audit::{self, Audit, Rule};
use crate::trace::parse::Run;

/// Maximum time for the search.
const WITHIN: Duration = Duration::from_secs(30);

/// The result of the search on an audited run: a message, and the exit code of both checks together.
pub fn cross_check(run: &Run, audit: &Audit) -> (String, u8) {
    judge(&check_run(run, Instant::now() + WITHIN), audit)
}

fn judge(search: &LinearizabilityVerdict, audit: &Audit) -> (String, u8) {
    let violated = audit::AuditVerdict::Violated;
    let clients_lied_to = |rule| matches!(rule, Rule::Reply | Rule::RealTime | Rule::Once);
    let witness_broke = audit.findings.iter().any(|found| found.verdict == violated && clients_lied_to(found.rule));
    let code = audit.verdict().exit_code();
    match search {
        LinearizabilityVerdict::Linearizable { operations, keys } if witness_broke => (
            format!(
                "DISAGREEMENT: an order explains the clients' {operations} operations on {keys} keys, but the slots of \
                 their replies contradict it\n"
            ),
            violated.exit_code(),
        ),
        LinearizabilityVerdict::Linearizable { operations, keys } => {
            (format!("clients: {operations} operations on {keys} keys are linearizable\n"), code)
        }
        LinearizabilityVerdict::Violation(witness) => {
            let words = if audit.verdict() == violated { "clients" } else { "DISAGREEMENT" };
            let more = format!("no order explains key {}; see: paxos-lab check", witness.key);
            (format!("{words}: the clients' results are NOT linearizable; {more}\n"), violated.exit_code())
        }
        LinearizabilityVerdict::Unknown(why) => {
            (format!("clients: not decided whether their results are linearizable: {why}\n"), code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::verdict::{SourceLines, WhyUndecided, Witness};
    use super::*;
    use crate::trace::audit::{AuditCounts, Finding};

    fn audit(findings: &[(Rule, audit::AuditVerdict)]) -> Audit {
        let finding = |&(rule, verdict)| Finding { rule, verdict, message: String::new(), lines: Vec::new() };
        let findings = findings.iter().map(finding).collect();
        Audit { findings, counts: AuditCounts::default(), unsafe_lines: Vec::new() }
    }

    #[test]
    fn agreement_keeps_the_audit_verdict_and_disagreement_is_a_failure() {
        let fine = LinearizabilityVerdict::Linearizable { operations: 3, keys: 1 };
        let undecided = LinearizabilityVerdict::Unknown(WhyUndecided::Incomplete("a line is missing".to_string()));
        let breaks = SourceLines { call: 0, end: None };
        let witness = Witness { key: "k".to_string(), order: vec![], state: String::new(), breaks, open: vec![] };
        let broken = LinearizabilityVerdict::Violation(Box::new(witness));
        let missing = audit(&[(Rule::Complete, audit::AuditVerdict::Unproven)]);
        let stale = || audit(&[(Rule::RealTime, audit::AuditVerdict::Violated)]);
        let forgot = audit(&[(Rule::Promise, audit::AuditVerdict::Violated)]);
        for (search, audit, code, disagree) in [
            (&fine, audit(&[]), 0, false),
            (&fine, missing, 6, false),
            (&fine, stale(), 7, true),
            (&fine, forgot, 7, false),
            (&undecided, audit(&[]), 0, false),
            (&broken, stale(), 7, false),
            (&broken, audit(&[]), 7, true),
        ] {
            let (text, found) = judge(search, &audit);
            assert_eq!((found, text.contains("DISAGREEMENT")), (code, disagree), "{text}");
        }
    }

    #[test]
    fn a_run_of_a_thousand_writes_is_searched_to_its_end() {
        let line = |micros: usize, rest: &str| {
            let (id, role) = (format!("c1.{}", micros + 1), "client");
            format!("2026-08-21T14:03:07.{micros:06}Z INFO  {id:<7} {role:<8} {rest}\n")
        };
        let mut text = line(0, "BOOT     version=0.1.0 lines=2 cluster=s1");
        for n in 1..=1_000 {
            let request = format!("REQUEST  req=c1-{n} op=PUT key=k value=v to=s1 session=3 sequence={n}");
            let response = format!("RESPONSE req=c1-{n} status=OK slot={n} version={n} took=0.001ms server=s1");
            text += &(line(2 * n - 1, &request) + &line(2 * n, &response));
        }
        let mut run = Run::default();
        run.add("client-1.log", text.as_bytes(), text.len() as u64).unwrap();
        let (text, code) = cross_check(&run, &audit(&[]));
        assert_eq!((&*text, code), ("clients: 1000 operations on 1 keys are linearizable\n", 0));
    }
}
