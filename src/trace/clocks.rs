//! What lines tell of the clocks that stamped them.

use std::collections::BTreeMap;

use super::line::{Line, ProcessId};

/// Threads of one process may stamp their lines a little out of order; no further than this, in seconds.
const SLACK_SECONDS: i64 = 1;

/// The first line that a process wrote after another one of its own, by a clock that had been set back meanwhile. Then
/// what came before what cannot be told from time stamps.
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
