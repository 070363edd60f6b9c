//! A correct run is proved, and for each rule a run that breaks only that one is found.

use super::script::run;
use super::*;
use crate::paxos::Slot;
use crate::trace::field::fingerprint;

/// Two clients at two servers. One acceptor accepts c1's write of red; c2's proposer finds it there, finishes it, and
/// proposes c2's own write after it. In between an acceptor crashes and restarts, and a server is stopped and started.
/// A line starts with its processes (`s1,s2` write the same line); ALL are all five servers.
const HONEST: &str = "\
ALL server BOOT version=0.1.0 lines=2 cluster=ALL protocol=basic-paxos restart=disk steps=on incarnation=1 applied=0 promised=none accepted=0 disk=00aa
c1 client REQUEST req=c1-1 op=OPEN to=s1
s1 proposer PREPARE req=c1-1 slot=1+ ballot=1.1 to=ALL
s1,s2,s3 acceptor PROMISE req=c1-1 slot=1+ ballot=1.1 accepted=none to=s1
s1 proposer ACCEPT req=c1-1 slot=1 ballot=1.1 op=OPEN adopted=none quorum=s1,s2,s3 to=ALL
s1,s2,s3,s4 acceptor ACCEPTED req=c1-1 slot=1 ballot=1.1 to=s1
s1 learner CHOSEN req=c1-1 slot=1 ballot=1.1 quorum=s1,s2,s3 to=ALL
ALL learner LEARN req=c1-1 slot=1 ballot=1.1 op=OPEN id=0-~0077 result=OPENED session=1 applied=1
c1 client RESPONSE req=c1-1 status=OK session=1 took=5.000ms server=s1
c1 client REQUEST req=c1-2 op=PUT key=color value=blue to=s1 session=1 sequence=1
s1 proposer PREPARE req=c1-2 slot=2+ ballot=2.1 to=ALL
s1,s2,s3 acceptor PROMISE req=c1-2 slot=2+ ballot=2.1 accepted=none to=s1
s1 proposer ACCEPT req=c1-2 slot=2 ballot=2.1 op=PUT key=color value=blue adopted=none quorum=s1,s2,s3 to=ALL
s1,s2,s3 acceptor ACCEPTED req=c1-2 slot=2 ballot=2.1 to=s1
s1 learner CHOSEN req=c1-2 slot=2 ballot=2.1 quorum=s1,s2,s3 to=ALL
ALL learner LEARN req=c1-2 slot=2 ballot=2.1 op=PUT key=color value=blue id=1-1 result=OK version=1 applied=2
c1 client RESPONSE req=c1-2 status=OK slot=2 version=1 took=5.000ms server=s1
c1 client REQUEST req=c1-3 op=PUT key=color value=red to=s1 session=1 sequence=2
s1 proposer PREPARE req=c1-3 slot=3+ ballot=3.1 to=ALL
s1,s2,s3 acceptor PROMISE req=c1-3 slot=3+ ballot=3.1 accepted=none to=s1
s2 acceptor CRASH cause=timer point=before-send up=3.000s down=0.500s
s1 proposer ACCEPT req=c1-3 slot=3 ballot=3.1 op=PUT key=color value=red adopted=none quorum=s1,s2,s3 to=ALL
s1 acceptor ACCEPTED req=c1-3 slot=3 ballot=3.1 to=s1
c2 client REQUEST req=c2-1 op=PUT key=color value=green to=s5 session=1 sequence=9
s5 proposer PREPARE req=c2-1 slot=3+ ballot=4.5 to=ALL
s1 acceptor PROMISE req=c2-1 slot=3+ ballot=4.5 accepted=3@3.1 to=s5
s4,s5 acceptor PROMISE req=c2-1 slot=3+ ballot=4.5 accepted=none to=s5
s4 acceptor NACK req=c1-3 slot=3 ballot=3.1 promised=4.5 to=s1
s5 proposer ACCEPT req=c1-3 slot=3 ballot=4.5 op=PUT key=color value=red adopted=3.1 quorum=s1,s4,s5 to=ALL
s5 proposer ACCEPT req=c2-1 slot=4 ballot=4.5 op=PUT key=color value=green adopted=none quorum=s1,s4,s5 to=ALL
s1,s4,s5 acceptor ACCEPTED req=c1-3 slot=3 ballot=4.5 to=s5
s1,s4,s5 acceptor ACCEPTED req=c2-1 slot=4 ballot=4.5 to=s5
s5 learner CHOSEN req=c1-3 slot=3 ballot=4.5 quorum=s1,s4,s5 to=ALL
s5 learner CHOSEN req=c2-1 slot=4 ballot=4.5 quorum=s1,s4,s5 to=ALL
ALL learner LEARN req=c1-3 slot=3 ballot=4.5 op=PUT key=color value=red id=1-2 result=OK version=2 applied=3
ALL learner LEARN req=c2-1 slot=4 ballot=4.5 op=PUT key=color value=green id=1-9 result=OK version=3 applied=4
c2 client RESPONSE req=c2-1 status=OK slot=4 version=3 took=5.000ms server=s5
c1 client TIMEOUT req=c1-3 waited=1.000s tries=s1 status=UNKNOWN
s2 acceptor RESTART down=0.500s recovered=disk promised=3.1 accepted=3
c1 client REQUEST req=c1-4 op=GET key=color to=s3
c1 client RESPONSE req=c1-4 status=OK slot=4 version=3 value=green took=1.000ms server=s3
s3 server STOP cause=SIGTERM
s3@2 server BOOT version=0.1.0 lines=2 cluster=ALL protocol=basic-paxos restart=disk steps=on incarnation=2 applied=0 promised=3.1 accepted=2 disk=00aa
s3@2 learner LEARN req=c1-1 slot=1 ballot=1.1 op=OPEN id=0-~0077 result=OPENED session=1 applied=1
s3@2 learner LEARN req=c1-2 slot=2 ballot=2.1 op=PUT key=color value=blue id=1-1 result=OK version=1 applied=2
c2 client REQUEST req=c2-2 op=DELETE key=color to=s2 session=1 sequence=10
s2 proposer PREPARE req=c2-2 slot=5+ ballot=5.2 to=ALL
s2,s4,s5 acceptor PROMISE req=c2-2 slot=5+ ballot=5.2 accepted=none to=s2
s3@2 acceptor PROMISE req=c2-2 slot=5+ ballot=5.2 accepted=none to=s2
s2 proposer ACCEPT req=c2-2 slot=5 ballot=5.2 op=DELETE key=color adopted=none quorum=s2,s4,s5 to=ALL
s2,s4,s5 acceptor ACCEPTED req=c2-2 slot=5 ballot=5.2 to=s2
s2 learner CHOSEN req=c2-2 slot=5 ballot=5.2 quorum=s2,s4,s5 to=ALL
s1,s2,s4,s5 learner LEARN req=c2-2 slot=5 ballot=5.2 op=DELETE key=color id=1-10 result=OK version=4 applied=5
c2 client RESPONSE req=c2-2 status=OK slot=5 version=4 took=5.000ms server=s2
c2 client REQUEST req=c2-3 op=GET key=color to=s1
c2 client RESPONSE req=c2-3 status=NOTFOUND slot=5 version=4 took=1.000ms server=s1
c1 client REQUEST req=c1-5 op=PUT key=shape value=round to=s4 session=1 sequence=3
c1 client TIMEOUT req=c1-5 waited=1.000s tries=s4 status=NOTAPPLIED
s2 proposer PREPARE slot=1+ ballot=6.2 to=ALL
s2 acceptor PROMISE slot=1+ ballot=6.2 accepted=1@1.1,2@2.1,3@3.1,5@5.2 to=s2
s1,s2 server DIGEST slot=5 digest=00000000000000aa
s1,s2,s3@2,s4,s5 server STOP cause=SIGTERM
";

/// The correct run with these replacements.
fn with_changes(changes: &[(&str, &str)]) -> String {
    let mut script = HONEST.to_string();
    for (what, with) in changes {
        assert!(script.contains(what), "there is no {what} in the run");
        script = script.replace(what, with);
    }
    script
}

/// The correct run without the lines that contain this text.
fn without(what: &str) -> String {
    let kept: Vec<&str> = HONEST.lines().filter(|line| !line.contains(what)).collect();
    assert!(kept.len() < HONEST.lines().count(), "there is no {what} in the run");
    kept.join("\n") + "\n"
}

/// The correct run with one more line, after the one that contains `after`.
fn with(after: &str, line: &str) -> String {
    let at = HONEST.find(after).unwrap_or_else(|| panic!("there is no {after} in the run"));
    let end = at + HONEST[at..].find('\n').unwrap() + 1;
    format!("{}{line}\n{}", &HONEST[..end], &HONEST[end..])
}

#[track_caller]
fn assert_finding(script: &str, verdict: AuditVerdict, rule: Rule, part_of_sentence: &str) {
    let run = run(script);
    let audit = Audit::new(&run);
    let text = audit.explain(&run).to_string();
    assert_eq!(audit.verdict(), verdict, "{text}");
    assert!(audit.findings.iter().all(|finding| finding.rule == rule), "{text}");
    assert!(audit.findings.iter().any(|finding| finding.message.contains(part_of_sentence)), "{text}");
    assert!(audit.findings.iter().all(|finding| finding.lines.iter().all(|at| *at < run.lines.len())));
}

#[track_caller]
fn assert_violated(script: &str, rule: Rule, part_of_sentence: &str) {
    assert_finding(script, AuditVerdict::Violated, rule, part_of_sentence);
}

#[track_caller]
fn assert_unproven(script: &str, rule: Rule, part_of_sentence: &str) {
    assert_finding(script, AuditVerdict::Unproven, rule, part_of_sentence);
}

#[test]
fn correct_run_is_proved() {
    let run = run(HONEST);
    let audit = Audit::new(&run);
    let text = audit.explain(&run).to_string();
    assert_eq!(audit.verdict(), AuditVerdict::Proved, "{text}");
    let expected = AuditCounts {
        lines: run.lines.len(),
        answers: 35,
        proposals: 6,
        chosen: 5,
        applied: 26,
        replies: 8,
        crashes: 2,
        commits: None,
        histories: 1,
    };
    assert_eq!(audit.counts, expected);
    assert!(text.ends_with("verdict: PROVED, every rule was kept\n"), "{text}");
}

#[test]
fn run_with_missing_lines_is_not_proved() {
    assert_unproven(&without("BOOT"), Rule::Complete, "no BOOT line names");
    assert_unproven(&with_changes(&[("steps=on", "steps=off")]), Rule::Complete, "did not record protocol steps");
    assert_unproven(&with("req=c2-3 status", "s2 server LOST n=3"), Rule::Complete, "could not write 3 lines");
    assert_unproven(
        &with_changes(&[("protocol=basic-paxos", "protocol=two-phase-commit")]),
        Rule::Complete,
        "no rules fit both",
    );
    // Clients' lines only: a slot in a reply may be a transaction's number.
    let replies: String = HONEST.lines().filter(|line| line.starts_with('c')).map(|line| format!("{line}\n")).collect();
    assert_unproven(&replies, Rule::Complete, "which protocol the servers ran");
    let swapped = replies.replace("slot=5 version=4", "slot=1 version=4");
    assert_unproven(&swapped, Rule::Complete, "which protocol the servers ran");
    let other = "s4 server BOOT version=0.1.0 lines=2 cluster=s1,s2,s3 steps=on";
    assert_unproven(&with("req=c2-3 status", other), Rule::Complete, "different members");
    // An earlier incarnation of a server, whose lines are elsewhere, may have promised anything.
    let lived =
        without("s3@2").replace(" incarnation=1 applied=0 promised=none", " incarnation=2 applied=0 promised=1.3");
    let lived = lived.replace("ALL server BOOT", "s1@2,s2@2,s3@2,s4@2,s5@2 server BOOT");
    let audit = Audit::new(&run(&lived.lines().take(1).map(|line| format!("{line}\n")).collect::<String>()));
    assert_eq!((audit.verdict(), audit.findings.len()), (AuditVerdict::Unproven, 5));
}

#[test]
fn gap_in_line_numbers_is_not_proved() {
    let mut run = run(HONEST);
    let at = run.lines.iter().position(|entry| entry.line.id.to_string() == "s4.5").unwrap();
    run.lines.remove(at);
    let audit = Audit::new(&run);
    assert_eq!(audit.verdict(), AuditVerdict::Unproven, "{}", audit.explain(&run));
    assert!(audit.findings.iter().any(|finding| finding.message == "expected line s4.5, found s4.6"));
}

#[test]
fn claims_about_a_server_without_lines_are_not_proved() {
    let script = HONEST.replace("ALL server", "s1,s2,s3,s5 server").replace("ALL learner", "s1,s2,s3,s5 learner");
    let script = script.replace("s4 acceptor NACK", "s5 acceptor NACK").replace("s2,s4,s5 acceptor", "s2,s5 acceptor");
    let script =
        script.replace("s1,s2,s4,s5 learner", "s1,s2,s5 learner").replace("s1,s4,s5 acceptor", "s1,s5 acceptor");
    let script = script.replace("s4,s5 acceptor", "s5 acceptor").replace("s1,s2,s3,s4 acceptor", "s1,s2,s3 acceptor");
    let run = run(&script);
    let audit = Audit::new(&run);
    assert_eq!(audit.verdict(), AuditVerdict::Unproven, "{}", audit.explain(&run));
    let rules: Vec<Rule> = audit.findings.iter().map(|finding| finding.rule).collect();
    assert!(rules.contains(&Rule::Majority) && rules.contains(&Rule::Adopt), "{}", audit.explain(&run));
}

#[test]
fn late_lines_are_evidence_but_need_none() {
    // The evidence for this CHOSEN is in a file that was read before the evidence was written.
    let mut run = run(&with_changes(&[("s2,s4,s5 acceptor ACCEPTED", "s2 acceptor ACCEPTED")]));
    assert_eq!(Audit::new(&run).verdict(), AuditVerdict::Violated);
    let at = run.lines.iter().position(|entry| entry.line.to_string().contains("CHOSEN   req=c2-2")).unwrap();
    run.lines[at].late = true;
    assert_eq!(Audit::new(&run).verdict(), AuditVerdict::Proved, "{}", Audit::new(&run).explain(&run));
}

#[test]
fn a_broken_promise_is_found() {
    let after = "s4,s5 acceptor PROMISE req=c2-1";
    assert_violated(&with(after, "s4 acceptor ACCEPTED slot=3 ballot=3.1 to=s1"), Rule::Promise, "had promised 4.5");
    assert_violated(
        &with(after, "s4 acceptor PROMISE slot=3+ ballot=3.1 accepted=none to=s1"),
        Rule::Promise,
        "had promised 4.5",
    );
    assert_violated(&with_changes(&[("promised=4.5 to=s1", "promised=4.2 to=s1")]), Rule::Promise, "a higher ballot");
    assert_violated(
        &with_changes(&[("promised=4.5 to=s1", "promised=7.2 to=s1")]),
        Rule::Promise,
        "no line shows that promise",
    );
    assert_violated(
        &with_changes(&[("ballot=3.1 promised=4.5", "ballot=5.1 promised=4.5")]),
        Rule::Promise,
        "refused 5.1",
    );
}

#[test]
fn acceptor_that_lost_its_data_is_found() {
    assert_violated(
        &with_changes(&[("promised=3.1 accepted=3", "promised=2.1 accepted=3")]),
        Rule::Promise,
        "had promised 3.1",
    );
    assert_violated(
        &with_changes(&[("promised=3.1 accepted=3", "promised=3.1 accepted=1")]),
        Rule::Promise,
        "1 of 2 accepted slots",
    );
    assert_violated(
        &with_changes(&[("promised=3.1 accepted=2", "promised=none accepted=2")]),
        Rule::Promise,
        "restarted with no promise",
    );
    assert_violated(&with_changes(&[(",3@3.1,5@5.2", ",3@3.1")]), Rule::Promise, "does not report slot 5");
    let older = "s4 acceptor PROMISE slot=3+ ballot=6.2 accepted=3@3.1,4@4.5,5@5.2 to=s2";
    assert_violated(&with("s2 acceptor PROMISE slot=1+", older), Rule::Promise, "accepted it at 4.5");
    // An acceptor that never crashed reports an acceptance that no line shows.
    let once_more = "s4 acceptor PROMISE slot=2+ ballot=6.2 accepted=2@2.1,3@4.5,4@4.5,5@5.2 to=s2";
    assert_violated(&with("s2 acceptor PROMISE slot=1+", once_more), Rule::Promise, "no line shows that it was");
    // The same where the line omits the slot, but its fingerprint shows it.
    let short = format!("s4 acceptor PROMISE slot=2+ ballot=6.2 accepted=3@4.5,{} to=s2", rest("3@4.5 4@4.5 5@4.5"));
    assert_violated(&with("s2 acceptor PROMISE slot=1+", &short), Rule::Promise, "other slots after slot 3");
}

/// The end of a report that shows its first slot only.
fn rest(all: &str) -> String {
    let slots = all.split(' ').map(|one| one.split_once('@').unwrap());
    let sums = slots.map(|(slot, ballot)| fingerprint(Slot(slot.parse().unwrap()), ballot.parse().unwrap()));
    let (count, sum) = sums.fold((0, 0_u64), |(count, sum), one| (count + 1, sum.wrapping_add(one)));
    format!("+{}#{sum:016x}", count - 1)
}

/// Twelve slots that s1 got accepted without recorded steps; then all servers restart and record them. s5 finishes slot
/// 9, which is after the slots that a PROMISE line shows.
fn steps_off_then_on(adopted: &str) -> String {
    let slots: Vec<String> = (1..=12).map(|slot| format!("{slot}@1.1")).collect();
    let accepted = format!("{},{}", slots[..8].join(","), rest(&slots.join(" ")).replace("+11#", "+4#"));
    let again = "s1@2,s2@2,s3@2,s4@2,s5@2";
    format!(
        "ALL server BOOT version=0.1.0 lines=2 cluster=ALL protocol=multi-paxos steps=off incarnation=1 applied=0 promised=none accepted=0 disk=00aa\n\
         s1 proposer LEAD slot=1+ ballot=1.1 quorum=s1,s2,s3\n\
         ALL server STOP cause=SIGTERM\n\
         {again} server BOOT version=0.1.0 lines=2 cluster=ALL protocol=multi-paxos steps=on incarnation=2 applied=8 promised=1.1 accepted=12 disk=00aa\n\
         s5@2 proposer PREPARE slot=1+ ballot=1025.5 to=ALL\n\
         s3@2,s4@2,s5@2 acceptor PROMISE slot=1+ ballot=1025.5 accepted={accepted} to=s5\n\
         s5@2 proposer ACCEPT slot=9 ballot=1025.5 op=PUT key=a value=9 adopted={adopted} quorum=s3,s4,s5 to=ALL\n\
         s3@2,s4@2,s5@2 acceptor ACCEPTED slot=9 ballot=1025.5 to=s5\n\
         {again} server STOP cause=SIGTERM\n"
    )
}

#[test]
fn steps_recorded_only_later_cause_no_violation() {
    let run = run(&steps_off_then_on("1.1"));
    let audit = Audit::new(&run);
    let text = audit.explain(&run).to_string();
    assert_eq!(audit.verdict(), AuditVerdict::Unproven, "{text}");
    let message = "proposes in slot 9 as if 1.1 was the highest accepted there, and the lines do not show all";
    assert!(text.contains(message) && text.contains("did not record protocol steps"), "{text}");
    // Where the lines are sufficient, the audit reports the violation.
    let other =
        steps_off_then_on("1.1").replace("ACCEPT slot=9", "ACCEPT slot=8").replace("adopted=1.1", "adopted=none");
    let run = super::script::run(&other);
    let audit = Audit::new(&run);
    assert_eq!(audit.verdict(), AuditVerdict::Violated, "{}", audit.explain(&run));
    assert!(
        audit.findings[0].message.contains("slot 8 as if nothing had been accepted there"),
        "{:?}",
        audit.findings[0]
    );
}

#[test]
fn lines_lost_to_a_full_disk_cause_no_violation() {
    // s4 could not write the line of its acceptance, and reports that later.
    let lost = with_changes(&[("s2,s4,s5 acceptor ACCEPTED", "s2,s5 acceptor ACCEPTED")]);
    let lost = lost.replace("s1,s2 server DIGEST", "s4 server LOST n=1\ns1,s2 server DIGEST");
    let run = run(&lost);
    let audit = Audit::new(&run);
    let text = audit.explain(&run).to_string();
    assert_eq!(audit.verdict(), AuditVerdict::Unproven, "{text}");
    assert!(
        text.contains("s4 could not write 1 lines") && text.contains("s4 did not accept it (lines of s4 are missing)")
    );
}

#[test]
fn last_lines_of_a_process_may_be_missing_unless_it_has_a_later_one() {
    // s4 was killed, or its log was cut: whether it accepted is unknown. STOP, or a line that follows from a later one,
    // shows it.
    let no_vote = with_changes(&[("s2,s4,s5 acceptor ACCEPTED", "s2,s5 acceptor ACCEPTED")]);
    assert_violated(&no_vote, Rule::Majority, "s4 did not accept it");
    let no_end = no_vote.replace("s1,s2,s3@2,s4,s5 server STOP", "s1,s2,s3@2,s5 server STOP");
    assert_unproven(&no_end, Rule::Majority, "s4 did not accept it (the last lines of s4 may be missing");
    let chosen = run(&no_end);
    let chosen = chosen.lines.iter().map(|entry| &entry.line).find(|line| {
        let text = line.to_string();
        text.contains("CHOSEN   req=c2-2")
    });
    let later = format!("re={}", chosen.unwrap().id);
    let told =
        no_end.replace("s1,s2 server DIGEST", &format!("s4 server STAGE name=later {later}\ns1,s2 server DIGEST"));
    assert_violated(&told, Rule::Majority, "s4 did not accept it");
}

#[test]
fn missing_parent_line_is_noticed() {
    let named = HONEST.replace("s1,s2 server DIGEST", "s1 server STAGE name=later re=s4.99\ns1,s2 server DIGEST");
    assert_unproven(&named, Rule::Complete, "was caused by s4.99, which is missing");
}

#[test]
fn different_cluster_members_allow_no_majority() {
    let larger = "s1 server BOOT version=0.1.0 lines=2 cluster=s1,s2,s3,s4,s5,s6,s7 steps=on incarnation=1\n";
    assert_unproven(&format!("{larger}{HONEST}"), Rule::Complete, "different members");
}

#[test]
fn crashed_acceptor_may_have_accepted_without_a_line() {
    // s2 accepted slot 3 at 3.1 and crashed before it wrote the line: the correct run shows that at its end.
    let once_more = "s1 acceptor PROMISE slot=5+ ballot=6.2 accepted=none to=s2";
    assert_eq!(Audit::new(&run(&with("s2 acceptor PROMISE slot=1+", once_more))).verdict(), AuditVerdict::Proved);
    // It cannot have accepted a value that was never proposed, whether it crashed or not.
    assert_violated(&with_changes(&[("3@3.1,5@5.2", "3@3.2,5@5.2")]), Rule::Ballot, "no line of s2 proposes it");
}

#[test]
fn run_without_stable_storage_is_unsafe_and_its_violations_are_found() {
    let lost = [("recovered=disk promised=3.1 accepted=3", "recovered=\"NONE UNSAFE\" promised=none accepted=0")];
    let script = with_changes(&lost);
    let run = run(&script);
    let audit = Audit::new(&run);
    assert!(audit.explain(&run).to_string().starts_with("UNSAFE: "));
    assert_eq!(audit.verdict(), AuditVerdict::Proved, "nothing has come of it yet: {}", audit.explain(&run));
    assert!(audit.explain(&run).to_string().ends_with("by chance: this run was UNSAFE\n"));
    assert_violated(
        &script.replace("accepted=1@1.1,2@2.1,3@3.1,5@5.2", "accepted=5@5.2"),
        Rule::Promise,
        "does not report slot 2",
    );
}

#[test]
fn a_ballot_with_two_owners_or_two_values_is_found() {
    let again = "s5 proposer PREPARE slot=4+ ballot=4.5 to=ALL";
    assert_violated(&with("s4 acceptor NACK", again), Rule::Ballot, "begins twice");
    let foreign = "s3 proposer PREPARE slot=3+ ballot=4.5 to=ALL";
    assert_violated(&with("s4 acceptor NACK", foreign), Rule::Ballot, "belongs to s5");
    let twice =
        "s5 proposer ACCEPT req=c2-1 slot=4 ballot=4.5 op=PUT key=color value=gray adopted=none quorum=s1,s4,s5 to=ALL";
    assert_violated(&with("s5 proposer ACCEPT req=c2-1", twice), Rule::Ballot, "two values");
    assert_violated(
        &with("s2 acceptor PROMISE slot=1+", "s5 acceptor ACCEPTED slot=6 ballot=6.4 to=s4"),
        Rule::Ballot,
        "no line of s4 proposes it",
    );
}

#[test]
fn repeated_promise_does_not_contradict_its_ballot() {
    // The line of the first promise is lost. The PREPARE arrives again after the acceptor has accepted at its ballot.
    let first = "s4,s5 acceptor PROMISE req=c2-1 slot=3+ ballot=4.5 accepted=none to=s5";
    let lost = first.replace("s4,s5", "s4 server LOST n=1\ns5");
    let accepted = "s1,s4,s5 acceptor ACCEPTED req=c2-1 slot=4 ballot=4.5 to=s5";
    let again = format!("{accepted}\ns4 acceptor PROMISE req=c2-1 slot=3+ ballot=4.5 accepted=3@4.5,4@4.5 to=s5");
    assert_unproven(&with_changes(&[(first, &lost), (accepted, &again)]), Rule::Complete, "could not write 1 lines");
}

#[test]
fn repeated_promise_does_not_replace_the_first_one() {
    // s1 reports red at 3.1, and the proposer proposes red as its own value. Then s1 receives the PREPARE again.
    let own =
        "s5 proposer ACCEPT req=c1-3 slot=3 ballot=4.5 op=PUT key=color value=red adopted=none quorum=s1,s4,s5 to=ALL";
    let ignored = own.replace("adopted=none", "adopted=3.1");
    let accepted = "s1,s4,s5 acceptor ACCEPTED req=c2-1 slot=4 ballot=4.5 to=s5";
    let again = format!("{accepted}\ns1 acceptor PROMISE req=c2-1 slot=3+ ballot=4.5 accepted=3@4.5,4@4.5 to=s5");
    assert_violated(
        &with_changes(&[(&ignored, own), (accepted, &again)]),
        Rule::Adopt,
        "as if nothing had been accepted",
    );
    // All lines of s4 are present, and its only reply came after it had accepted.
    let first = "s4,s5 acceptor PROMISE req=c2-1 slot=3+ ballot=4.5 accepted=none to=s5";
    let late = format!("{accepted}\ns4 acceptor PROMISE req=c2-1 slot=3+ ballot=4.5 accepted=3@4.5,4@4.5 to=s5");
    let script = with_changes(&[
        (first, &first.replace("s4,s5", "s5")),
        (accepted, &late),
        ("s4 acceptor NACK", "s5 acceptor NACK"),
    ]);
    assert_violated(&script, Rule::Adopt, "its promises report otherwise");
}

#[test]
fn client_lines_without_their_servers_cause_no_violation() {
    // The same client lines with the servers' lines of the next day, which contain other requests.
    let later: String = HONEST.lines().filter(|line| !line.starts_with('c')).map(|line| format!("{line}\n")).collect();
    let later = later.replace("value=green", "value=grey").replace("value=blue", "value=black");
    let mut both = run(&later);
    let tomorrow = jiff::SignedDuration::from_hours(24);
    both.lines.iter_mut().for_each(|entry| entry.line.time += tomorrow);
    let before: Vec<_> =
        run(HONEST).lines.into_iter().filter(|entry| entry.line.id.process.as_server().is_none()).collect();
    both.lines.extend(before);
    let audit = Audit::new(&both);
    assert_eq!(audit.verdict(), AuditVerdict::Unproven, "{}", audit.explain(&both));
}

#[test]
fn servers_without_common_lines_are_not_compared() {
    let of = |servers: &[&str], script: &str| -> String {
        let lines = script.replace("ALL", "s1,s2,s3,s4,s5");
        let mut kept = String::new();
        for line in lines.lines() {
            let (who, rest) = line.split_once(' ').unwrap();
            let who: Vec<&str> = who.split(',').filter(|who| servers.contains(who)).collect();
            if !who.is_empty() {
                kept += &format!("{} {rest}\n", who.join(","));
            }
        }
        kept
    };
    let mut both = run(&of(&["s1"], HONEST));
    let mut later = run(&of(&["s2"], &with_changes(&[("value=green", "value=grey")])));
    later.lines.iter_mut().for_each(|entry| entry.line.time += jiff::SignedDuration::from_hours(24));
    both.lines.extend(later.lines);
    let audit = Audit::new(&both);
    assert_eq!(audit.verdict(), AuditVerdict::Unproven, "{}", audit.explain(&both));
}

#[test]
fn a_proposal_that_its_promises_do_not_allow_is_found() {
    // Another value than the adopted one, throughout.
    let pink = [("slot=3 ballot=4.5 op=PUT key=color value=red", "slot=3 ballot=4.5 op=PUT key=color value=pink")];
    assert_violated(&with_changes(&pink), Rule::Adopt, "another value than the one");
    // The same value, but as if nothing had been reported.
    assert_violated(&with_changes(&[("adopted=3.1", "adopted=none")]), Rule::Adopt, "as if nothing had been accepted");
    assert_violated(
        &with_changes(&[(
            "slot=4 ballot=4.5 op=PUT key=color value=green adopted=none",
            "slot=4 ballot=4.5 op=PUT key=color value=green adopted=3.1",
        )]),
        Rule::Adopt,
        "as if 3.1 was the highest",
    );
    assert_violated(
        &with_changes(&[("slot=3+ ballot=4.5 to=ALL", "slot=4+ ballot=4.5 to=ALL")]),
        Rule::Adopt,
        "was prepared only from slot 4 on",
    );
    assert_violated(&without("PREPARE req=c2-1"), Rule::Adopt, "was never prepared");
    assert_violated(
        &with_changes(&[
            ("s4,s5 acceptor PROMISE req=c2-1", "s5 acceptor PROMISE req=c2-1"),
            ("s4 acceptor NACK", "s5 acceptor NACK"),
        ]),
        Rule::Adopt,
        "promises of s4 that were never given",
    );
    assert_violated(
        &with_changes(&[("adopted=none quorum=s2,s4,s5", "adopted=none quorum=s2,s5")]),
        Rule::Adopt,
        "no majority",
    );
}

/// s2 proposes green in slot 4 again; one of the promises that it rests on omits that slot.
fn proposes_again(long_promise: &str, adopted: &str) -> String {
    let lines = format!(
        "s2 proposer PREPARE slot=3+ ballot=7.2 to=ALL\n{long_promise}\n\
         s4,s5 acceptor PROMISE slot=3+ ballot=7.2 accepted=3@4.5,4@4.5,5@5.2 to=s2\n\
         s2 proposer ACCEPT req=c2-1 slot=4 ballot=7.2 op=PUT key=color value=green adopted={adopted} \
         quorum={},s4,s5 to=ALL",
        &long_promise[..2]
    );
    with("s2 acceptor PROMISE slot=1+", &lines)
}

#[test]
fn omitted_part_of_a_promise_is_found_from_acceptances() {
    let long = format!("s1 acceptor PROMISE slot=3+ ballot=7.2 accepted=3@4.5,{} to=s2", rest("3@4.5 4@4.5"));
    let honest = run(&proposes_again(&long, "4.5"));
    assert_eq!(Audit::new(&honest).verdict(), AuditVerdict::Proved, "{}", Audit::new(&honest).explain(&honest));
    assert_violated(&proposes_again(&long, "none"), Rule::Adopt, "as if nothing had been accepted");
}

#[test]
fn acceptance_without_a_line_is_found_by_its_fingerprint() {
    // Slot 4 was proposed to s2 at 4.5. It has no line of accepting it and crashed: it may have accepted, and here it
    // has.
    let long = format!("s2 acceptor PROMISE slot=3+ ballot=7.2 accepted=3@3.1,{} to=s2", rest("3@3.1 4@4.5 5@5.2"));
    let honest = run(&proposes_again(&long, "4.5"));
    assert_eq!(Audit::new(&honest).verdict(), AuditVerdict::Proved, "{}", Audit::new(&honest).explain(&honest));
    // It cannot have accepted a value that was never proposed.
    let long = format!("s2 acceptor PROMISE slot=3+ ballot=7.2 accepted=3@3.1,{} to=s2", rest("3@3.1 4@4.2 5@5.2"));
    let run = run(&proposes_again(&long, "4.5"));
    let audit = Audit::new(&run);
    assert_eq!(audit.verdict(), AuditVerdict::Violated, "{}", audit.explain(&run));
    assert!(
        audit
            .findings
            .iter()
            .any(|finding| finding.message == "no line proposes some of the values that s2 reports after slot 3")
    );
}

#[test]
fn a_choice_without_a_majority_is_found() {
    assert_violated(
        &with_changes(&[("s2,s4,s5 acceptor ACCEPTED", "s2,s5 acceptor ACCEPTED")]),
        Rule::Majority,
        "s4 did not accept it",
    );
    assert_violated(
        &with_changes(&[("slot=5 ballot=5.2 quorum=s2,s4,s5", "slot=5 ballot=5.2 quorum=s2,s4")]),
        Rule::Majority,
        "no majority",
    );
    assert_violated(&without("CHOSEN req=c2-2"), Rule::Majority, "never chosen");
}

#[test]
fn acceptance_at_another_ballot_does_not_count() {
    let honest = run(HONEST);
    let votes = |req: &str| {
        let of_s4 = |text: &String| text.contains(&format!("ACCEPTED req={req} ")) && text.contains(" s4.");
        let text = honest.lines.iter().map(|entry| entry.line.to_string()).find(of_s4).unwrap();
        text.split_whitespace().find(|word| word.starts_with("s4.")).unwrap().to_string()
    };
    let chosen = "slot=5 ballot=5.2 quorum=s2,s4,s5 to=ALL";
    let because_of = |vote: &str| with_changes(&[(chosen, &format!("{chosen} re={vote}"))]);
    assert_eq!(Audit::new(&run(&because_of(&votes("c2-2")))).verdict(), AuditVerdict::Proved);
    assert_violated(&because_of(&votes("c2-1")), Rule::Majority, "because of an acceptance at 4.5");
}

#[test]
fn two_values_in_one_slot_are_found() {
    let other = with_changes(&[("ALL learner LEARN req=c2-1", "s1,s2,s3,s4 learner LEARN req=c2-1")]);
    let other = other.replace("c2 client RESPONSE req=c2-1", "s5 learner LEARN req=c2-1 slot=4 ballot=4.5 op=PUT key=color value=gray id=1-9 result=OK version=3 applied=4\nc2 client RESPONSE req=c2-1");
    assert_violated(&other, Rule::Agreement, "different commands in slot 4");
    assert_violated(
        &other.replace("value=gray", "value=green").replace(
            "s5 learner LEARN req=c2-1 slot=4 ballot=4.5 op=PUT key=color value=green id=1-9 result=OK version=3",
            "s5 learner LEARN req=c2-1 slot=4 ballot=4.5 op=PUT key=color value=green id=1-9 result=OK version=2",
        ),
        Rule::Agreement,
        "different effects",
    );
    let all = with_changes(&[(
        "slot=2 ballot=2.1 op=PUT key=color value=blue id",
        "slot=2 ballot=1.1 op=PUT key=color value=blue id",
    )]);
    assert_violated(&all, Rule::Agreement, "no server proposed at 1.1");
}

#[test]
fn majorities_for_two_values_are_found_without_chosen_lines() {
    // A proposer that ignores a chosen value; that this breaks another rule too does not matter here.
    let rival = "s2 proposer ACCEPT req=c2-9 slot=5 ballot=6.2 op=DELETE key=shape adopted=5.2 quorum=s2,s4,s5 to=ALL\n\
                 s2,s4,s5 acceptor ACCEPTED slot=5 ballot=6.2 to=s2";
    let run = run(&with("s2 acceptor PROMISE slot=1+", rival));
    let audit = Audit::new(&run);
    let message = "majorities have accepted two values in slot 5";
    assert!(
        audit.findings.iter().any(|finding| finding.rule == Rule::Agreement && finding.message == message),
        "{}",
        audit.explain(&run)
    );
}

#[test]
fn a_learner_out_of_step_is_found() {
    assert_violated(
        &with_changes(&[("s1,s2,s4,s5 learner LEARN req=c2-2", "s1,s2,s4,s5,s3@2 learner LEARN req=c2-2")]),
        Rule::Apply,
        "out of order",
    );
    assert_violated(
        &with_changes(&[("s3@2 learner LEARN req=c1-1", "s3 learner LEARN req=c1-1")]),
        Rule::Apply,
        "out of order",
    );
    assert_violated(
        &with("s1,s2 server DIGEST", "s4 server DIGEST slot=5 digest=00000000000000bb"),
        Rule::Apply,
        "different states",
    );
    assert_violated(
        &with(
            "c2 client RESPONSE req=c2-2",
            "s4 learner LEARN req=c2-2 slot=5 ballot=5.2 op=DELETE key=color id=1-10 result=OK version=4 applied=5",
        ),
        Rule::Apply,
        "out of order",
    );
    let skipped = [
        ("result=OK version=4", "result=OK version=5"),
        ("status=OK slot=5 version=4", "status=OK slot=5 version=5"),
        ("status=NOTFOUND slot=5 version=4", "status=NOTFOUND slot=5 version=5"),
    ];
    assert_violated(&with_changes(&skipped), Rule::Apply, "the key of slot 5 was at version 3");
}

#[test]
fn a_write_with_two_effects_or_none_is_found() {
    assert_violated(
        &with_changes(&[("id=1-10 result=OK", "id=1-9 result=OK"), (" session=1 sequence=10", "")]),
        Rule::Once,
        "twice: in slot 4 and in slot 5",
    );
    assert_violated(
        &with_changes(&[("req=c2-1 status=OK slot=4 version=3", "req=c2-1 status=OK slot=3 version=2")]),
        Rule::Once,
        "holds another command",
    );
    assert_violated(
        &with_changes(&[("req=c2-2 status=OK slot=5", "req=c2-2 status=OK slot=6")])
            .replace("c2 client REQUEST req=c2-3 op=GET key=color to=s1\n", ""),
        Rule::Once,
        "which no server has applied",
    );
}

#[test]
fn duplicate_is_compared_with_its_first_effect() {
    let repeated = |first: u8| {
        format!(
            "s2 proposer ACCEPT req=c2-2 slot=6 ballot=6.2 op=DELETE key=color adopted=none quorum=s2,s4,s5 to=ALL\n\
             s2,s4,s5 acceptor ACCEPTED req=c2-2 slot=6 ballot=6.2 to=s2\n\
             s2 learner CHOSEN req=c2-2 slot=6 ballot=6.2 quorum=s2,s4,s5 to=ALL\n\
             s1 learner LEARN req=c2-2 slot=6 ballot=6.2 op=DELETE key=color id=1-10 result=DUPLICATE(first={first}) version=4 applied=6"
        )
    };
    let promises = "s4,s5 acceptor PROMISE slot=1+ ballot=6.2 accepted=3@4.5,4@4.5,5@5.2 to=s2";
    let promises = promises.replace("s4,s5", "s4").replace("accepted=", "accepted=1@1.1,")
        + "\n"
        + promises.replace("s4,s5", "s5").as_str();
    let script = |first| with("s2 acceptor PROMISE slot=1+", &format!("{promises}\n{}", repeated(first)));
    let honest = run(&script(5));
    assert_eq!(Audit::new(&honest).verdict(), AuditVerdict::Proved, "{}", Audit::new(&honest).explain(&honest));
    assert_violated(&script(4), Rule::Once, "slot 4 does not hold");
}

#[test]
fn wrong_reply_is_found() {
    assert_violated(
        &with_changes(&[("req=c2-2 status=OK slot=5 version=4", "req=c2-2 status=OK slot=5 version=3")]),
        Rule::Reply,
        "differs from the result of slot 5",
    );
    assert_violated(
        &with_changes(&[("status=OK slot=4 version=3 value=green", "status=OK slot=4 version=3 value=red")]),
        Rule::Reply,
        "last write before",
    );
    assert_violated(
        &with_changes(&[("status=NOTFOUND slot=5 version=4", "status=OK slot=5 version=4")]),
        Rule::Reply,
        "last write before",
    );
    assert_violated(
        &with_changes(&[("waited=1.000s tries=s1 status=UNKNOWN", "waited=1.000s tries=s1 status=NOTAPPLIED")]),
        Rule::Reply,
        "reported as not applied was applied",
    );
    assert_violated(
        &with_changes(&[("status=NOTFOUND slot=5 version=4", "status=NOTFOUND version=4")]),
        Rule::Reply,
        "without a slot",
    );
}

#[test]
fn an_order_that_contradicts_real_time_is_found() {
    // A read after an acknowledged write does not see it.
    assert_violated(
        &with_changes(&[("status=NOTFOUND slot=5 version=4", "status=OK slot=4 version=3 value=green")]),
        Rule::RealTime,
        "slot 5 was answered before the request of slot 4",
    );
    // c2's request follows a reply to c1 that was answered from the slot of c2's write.
    let moved = without("REQUEST req=c2-1").replace("c1 client REQUEST req=c1-4 op=GET key=color to=s3\n", "");
    let late = "c1 client REQUEST req=c1-4 op=GET key=color to=s3\nc1 client RESPONSE req=c1-4 status=OK slot=4 version=3 value=green took=1.000ms server=s3\nc2 client REQUEST req=c2-1 op=PUT key=color value=green to=s5 session=1 sequence=9\n";
    let moved = moved
        .replace("c1 client RESPONSE req=c1-4 status=OK slot=4 version=3 value=green took=1.000ms server=s3\n", "");
    assert_violated(
        &moved.replace("s5 proposer PREPARE req=c2-1", &format!("{late}s5 proposer PREPARE req=c2-1")),
        Rule::RealTime,
        "slot 4 was answered before the request of slot 4",
    );
}

#[test]
fn many_findings_of_a_kind_are_counted() {
    let run = run(&with_changes(&[
        ("result=OK version=1", "result=OK version=8"),
        ("status=OK slot=2 version=1", "status=OK slot=2 version=8"),
    ]));
    let text = Audit::new(&run).explain(&run).to_string();
    assert!(text.contains("VIOLATION (apply): the key of slot 2 was at version 0"), "{text}");
    let lost: String = (0..9).map(|_| "s2 server LOST n=1\n").collect();
    let run = super::script::run(&format!("{HONEST}{lost}"));
    let text = Audit::new(&run).explain(&run).to_string();
    assert!(text.contains("not provable (complete): 4 more of this kind"), "{text}");
}

#[test]
fn contradicting_replies_are_found_without_the_log() {
    // The servers recorded no steps, so only the clients' lines are left.
    let hidden: String = HONEST
        .lines()
        .filter(|line| line.starts_with('c') || line.contains(" BOOT "))
        .map(|line| line.replace("steps=on", "steps=off") + "\n")
        .collect();
    let verdict = |script: &str| {
        let run = run(script);
        let audit = Audit::new(&run);
        (audit.verdict(), audit.explain(&run).to_string())
    };
    assert_eq!(verdict(&hidden).0, AuditVerdict::Unproven, "{}", verdict(&hidden).1);
    for (what, with) in [
        ("status=OK slot=4 version=3 value=green", "status=OK slot=4 version=3 value=red"),
        ("status=OK slot=4 version=3 value=green", "status=OK slot=4 version=2 value=green"),
        ("status=OK slot=5 version=4", "status=OK slot=5 version=3"),
        ("status=NOTFOUND slot=5 version=4", "status=OK slot=5 version=4 value=green"),
    ] {
        assert!(hidden.contains(what), "{what}");
        let (verdict, text) = verdict(&hidden.replace(what, with));
        assert!(verdict == AuditVerdict::Violated && text.contains("which no single log allows"), "{with}: {text}");
    }
}
