//! A comparison of the two proofs of a run: the search over the clients' results, and the audit.
//!
//! The audit proves the order of replies by the slots in them (the *slot witness*). The search asks only whether some
//! order explains what the clients saw. The two rest on different evidence, so a bug in one of them shows as
//! disagreement, and disagreement is a failure.

use super::LinearizabilityVerdict;
use paxos_kv::trace::audit::{Audit, AuditVerdict, Rule};

/// How the search and the audit of the same log lines contradict each other, if they do.
pub(super) fn disagreement(search: &LinearizabilityVerdict, audit: &Audit) -> Option<&'static str> {
    let about_clients = |rule| matches!(rule, Rule::Reply | Rule::RealTime | Rule::Once);
    let violated = AuditVerdict::Violated;
    let witness_broke = audit.findings.iter().any(|found| found.verdict == violated && about_clients(found.rule));
    match search {
        LinearizabilityVerdict::Linearizable { .. } if witness_broke => {
            Some("some order explains what the clients saw, and the audit finds that the slots of their replies do not")
        }
        LinearizabilityVerdict::Violation(_) if audit.verdict() == AuditVerdict::Proved => {
            Some("no order explains what the clients saw, and the audit proves the run")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::check_run;
    use super::super::verdict::{SourceLines, WhyUndecided, Witness};
    use super::*;
    use paxos_kv::trace::audit::{AuditCounts, Finding};
    use paxos_kv::trace::parse::Run;

    fn audit(findings: &[(Rule, AuditVerdict)]) -> Audit {
        let finding = |&(rule, verdict)| Finding { rule, verdict, message: String::new(), lines: Vec::new() };
        let findings = findings.iter().map(finding).collect();
        Audit { findings, counts: AuditCounts::default(), unsafe_lines: Vec::new() }
    }

    #[test]
    fn only_contradictions_are_disagreements() {
        let fine = LinearizabilityVerdict::Linearizable { operations: 3, keys: 1 };
        let undecided = LinearizabilityVerdict::Unknown(WhyUndecided::Incomplete("a line is missing".to_string()));
        let breaks = SourceLines { call: 0, end: None };
        let witness = Witness { key: "k".to_string(), order: vec![], state: String::new(), breaks, open: vec![] };
        let broken = LinearizabilityVerdict::Violation(Box::new(witness));
        let missing = (Rule::Complete, AuditVerdict::Unproven);
        let stale = (Rule::RealTime, AuditVerdict::Violated);
        let forgot = (Rule::Promise, AuditVerdict::Violated);
        for (search, audit, disagree) in [
            (&fine, audit(&[]), false),
            (&fine, audit(&[missing]), false),
            (&fine, audit(&[stale]), true),
            (&fine, audit(&[forgot]), false),
            (&undecided, audit(&[]), false),
            (&undecided, audit(&[stale]), false),
            (&broken, audit(&[stale]), false),
            (&broken, audit(&[missing]), false),
            (&broken, audit(&[]), true),
        ] {
            assert_eq!(disagreement(search, &audit).is_some(), disagree, "{search:?}: {:?}", audit.findings);
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
        let search = check_run(&run, Instant::now() + Duration::from_secs(30));
        assert!(matches!(search, LinearizabilityVerdict::Linearizable { operations: 1_000, keys: 1 }), "{search:?}");
    }
}
