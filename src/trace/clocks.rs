//! Clock checks: whether the clock that stamped a process's lines was set back.

use std::collections::BTreeMap;

use super::line::{Line, ProcessId};

/// Tolerance in seconds: threads of one process may stamp their lines slightly out of order.
const SLACK_SECONDS: i64 = 1;

/// The first line of a process whose time is before an earlier line of the same process by more than the tolerance. The
/// clock was set back in between, so time stamps no longer tell the order of events.
pub fn first_set_back<'a>(lines: impl IntoIterator<Item = &'a Line>) -> Option<&'a Line> {
    let mut latest: BTreeMap<&ProcessId, i64> = BTreeMap::new();
    lines.into_iter().find(|line| {
        let second = line.time.as_second();
        let before = latest.entry(&line.id.process).or_insert(second);
        let is_set_back = second + SLACK_SECONDS < *before;
        *before = second.max(*before);
        is_set_back
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(second: u32, process: &str, n: u32) -> Line {
        let id = format!("{process}.{n}");
        let said = "client   REQUEST  req=c1-1 op=GET key=a to=s1";
        format!("2026-08-21T14:03:{second:02}.000000Z INFO  {id:<7} {said}").parse().unwrap()
    }

    #[test]
    fn a_clock_that_is_set_back_is_noticed_in_the_lines_of_one_process() {
        let lines = [line(10, "c1", 1), line(30, "c1", 2), line(20, "c2", 1), line(29, "c1", 3)];
        assert_eq!(first_set_back(&lines), None, "processes are on their own, and a second is nothing");
        let lines = [line(10, "c1", 1), line(30, "c1", 2), line(20, "c1", 3)];
        assert_eq!(first_set_back(&lines).map(|line| line.id.n), Some(3));
    }
}
