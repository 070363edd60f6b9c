//! Tests of the page's text and of its choice of lines. The page's behavior is tested in a browser.

use super::counts::{PageCounts, messages};
use super::*;
use crate::trace::audit::Audit;

/// One write, while s3's acceptor is down.
const SAMPLE_RUN: &str = "\
2026-08-21T14:03:00.000000Z INFO  s1.1    server   BOOT     version=0.1.0 lines=2 cluster=s1,s2,s3 steps=on incarnation=1
2026-08-21T14:03:06.000000Z WARN  s3.1    acceptor CRASH    cause=timer up=4.402s down=2.150s
2026-08-21T14:03:07.104000Z INFO  c1.9    client   REQUEST  req=c1-5 op=PUT key=color value=blue to=s1
2026-08-21T14:03:07.104300Z INFO  s1.2    server   REQUEST  req=c1-5 op=PUT key=color value=blue from=127.0.0.1:50312 re=c1.9
2026-08-21T14:03:07.104455Z INFO  s1.3    proposer PREPARE  req=c1-5 slot=7+ ballot=3.1 to=s1,s2,s3 re=s1.2
2026-08-21T14:03:07.104600Z INFO  s1.4    acceptor PROMISE  req=c1-5 slot=7+ ballot=3.1 accepted=none to=s1 re=s1.3
2026-08-21T14:03:07.105000Z INFO  s2.1    acceptor PROMISE  req=c1-5 slot=7+ ballot=3.1 accepted=none to=s1 re=s1.3
2026-08-21T14:03:07.105388Z INFO  s1.5    proposer ACCEPT   req=c1-5 slot=7 ballot=3.1 op=PUT key=color value=blue adopted=none quorum=s1,s2 to=s1,s2,s3 re=s2.1
2026-08-21T14:03:07.105500Z INFO  s1.6    acceptor ACCEPTED req=c1-5 slot=7 ballot=3.1 to=s1 re=s1.5
2026-08-21T14:03:07.106000Z INFO  s2.2    acceptor ACCEPTED req=c1-5 slot=7 ballot=3.1 to=s1 re=s1.5
2026-08-21T14:03:07.110000Z INFO  s1.7    learner  CHOSEN   req=c1-5 slot=7 ballot=3.1 quorum=s1,s2 to=s1,s2,s3 re=s2.2
2026-08-21T14:03:07.110100Z INFO  s1.8    learner  LEARN    req=c1-5 slot=7 ballot=3.1 op=PUT key=color value=blue result=OK version=1 applied=7 re=s1.7
2026-08-21T14:03:08.061377Z INFO  s3.2    acceptor RESTART  down=2.150s recovered=disk promised=none accepted=0
2026-08-21T14:03:09.000000Z INFO  s2@2.1  server   BOOT     version=0.1.0 lines=2 cluster=s1,s2,s3 steps=on incarnation=2
2026-08-21T14:03:10.000000Z INFO  s1.9    server   STOP     cause=SIGINT
";

fn run_of(text: &str) -> Run {
    let mut run = Run::default();
    run.add("all.log", text.as_bytes(), u64::MAX).unwrap();
    run
}

#[test]
fn messages_are_found_by_parent_and_by_quorum() {
    let run = run_of(SAMPLE_RUN);
    let named: Vec<String> =
        messages(&run).into_iter().map(|(a, b)| format!("{}>{}", run.line(a).id, run.line(b).id)).collect();
    assert_eq!(
        named,
        [
            "c1.9>s1.2",
            "s1.2>s1.3",
            "s1.3>s1.4",
            "s1.3>s2.1",
            "s1.4>s1.5",
            "s2.1>s1.5",
            "s1.5>s1.6",
            "s1.5>s2.2",
            "s1.6>s1.7",
            "s2.2>s1.7"
        ]
    );
    let facts = PageCounts::new(&run);
    // The acceptor's crash, the restart of s2, the end of s1.
    assert_eq!(facts, PageCounts { lines: 15, servers: 3, others: 1, messages: 10, outages: 3, requests: 1 });
}

#[test]
fn long_run_is_cut_to_lines_around_the_first_violation() {
    let run = run_of(SAMPLE_RUN);
    let kept = |wrong, most| window(&run, distinct(&run), wrong, most);
    assert_eq!(kept(None, 15), (0..15).collect::<Vec<_>>());
    assert_eq!(kept(None, 4), [0, 1, 2, 3]);
    assert_eq!(kept(Some(3), 4), [0, 1, 2, 3]);
    assert_eq!(kept(Some(10), 4), [8, 9, 10, 11]);
    assert_eq!(kept(Some(14), 4), [11, 12, 13, 14]);
    let page = page(&run, &Audit::new(&run), "cut", 4);
    assert_eq!((page.counts.lines, page.left_out), (4, 11));
}

#[test]
fn page_keeps_one_line_per_id_and_counts_the_others() {
    // The same process again, as on a new data directory; its clock repeats the same times.
    let again: String =
        SAMPLE_RUN.lines().filter(|line| line.contains(" s2.")).map(|line| format!("{line}\n")).collect();
    let mut run = run_of(SAMPLE_RUN);
    let before = run.lines.len();
    run.add("server-2.log", again.replace("14:03", "14:04").as_bytes(), u64::MAX).unwrap();
    let repeated = run.lines.len() - before;
    assert!(repeated > 1);
    let page = page(&run, &Audit::new(&run), "twice", LINES_MAX);
    assert_eq!((page.counts.lines, page.repeated, page.left_out), (before, repeated, repeated));
}

#[test]
fn page_opens_at_the_last_line_of_the_first_violation() {
    let promised =
        "2026-08-21T14:03:07.105200Z INFO  s2.2    acceptor PROMISE  slot=7+ ballot=9.2 accepted=none to=s2\n";
    let late = "2026-08-21T14:03:07.106000Z INFO  s2.3    acceptor ACCEPTED";
    let at = "2026-08-21T14:03:07.105388Z";
    let broken = SAMPLE_RUN.replace(at, &format!("{promised}{at}")).replace("re=s2.2\n", "re=s2.3\n");
    let broken = broken.replace("2026-08-21T14:03:07.106000Z INFO  s2.2    acceptor ACCEPTED", late);
    // Without the second incarnation of s2, which may use another directory: the BOOT line of the one before is absent.
    let one_life: String =
        broken.lines().filter(|line| !line.contains("s2@2")).map(|line| format!("{line}\n")).collect();
    let run = run_of(&one_life);
    let page = page(&run, &Audit::new(&run), "broken", LINES_MAX);
    assert_eq!(page.opens_at.as_deref(), Some("s2.3"));
    assert!(page.html.contains(r#""verdict":"violated""#), "the page says so");
}

#[test]
fn page_of_an_unproven_run_says_why_and_opens_at_the_beginning() {
    let torn_out: Vec<&str> =
        SAMPLE_RUN.lines().filter(|line| !line.contains("ACCEPTED req=c1-5 slot=7 ballot=3.1 to=s1 re=s1.5")).collect();
    let run = run_of(&(torn_out.join("\n") + "\n"));
    let page = page(&run, &Audit::new(&run), "gaps", LINES_MAX);
    assert_eq!(page.opens_at, None);
    assert!(page.html.contains(r#""verdict":"unproven""#) && page.html.contains("found s1.7"));
}

#[test]
fn client_text_is_never_markup() {
    let hostile = "</script><img src=x onerror=alert(1)>%SCRIPT%%DATA%";
    let lines = SAMPLE_RUN.replace("key=color", &format!("key={}", crate::trace::QuotedText::from(hostile)));
    let run = run_of(&lines);
    let html = page(&run, &Audit::new(&run), hostile, LINES_MAX).html;
    assert!(!html.contains("<img") && !html.contains("</script><"), "it is escaped");
    let count = |part: &str| html.matches(part).count();
    assert_eq!((count("<script"), count("</script>"), count("id=\"data\"")), (2, 2, 1));
    // No placeholder of the page itself is left: those that remain are in the title's data.
    let places = ["%POLICY%", "%STYLE%", "%TITLE%", "%SCRIPT%", "%DATA%"];
    assert_eq!(places.map(count), [0, 0, 0, 1, 1]);
}

#[test]
fn page_makes_no_network_requests() {
    let run = run_of(SAMPLE_RUN);
    let html = page(&run, &Audit::new(&run), "alone", LINES_MAX).html;
    for part in ["http://", "https://", "src=", "href=", "@import", "url(", "fetch(", "XMLHttpRequest", "import("] {
        // The page refers to one of its own patterns as url(#...).
        assert!(!html.replace("url(#hatch)", "").contains(part), "{part}");
    }
    assert!(html.contains("default-src 'none'") && html.contains("connect-src 'none'"));
}
