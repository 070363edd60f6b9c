//! Scripts: runs for tests, in a short notation.

use std::collections::BTreeMap;

use crate::trace::Line;
use crate::trace::parse::Run;

/// A run from a script. A line starts with its processes (`s1,s2` write the same line, ALL are all five servers), then
/// role, event and fields. Each line of the script is one second later; numbers and levels are added.
pub(in crate::trace) fn run(script: &str) -> Run {
    let mut numbers: BTreeMap<String, u64> = BTreeMap::new();
    let mut run = Run::default();
    for (at, text) in script.replace("ALL", "s1,s2,s3,s4,s5").lines().enumerate() {
        let mut words = text.splitn(4, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (who, role, event, rest) = (word(), word(), word(), word());
        for who in who.split(',') {
            let n = numbers.entry(who.into()).or_default();
            *n += 1;
            let (seconds, id) = (format!("{:02}:{:02}", at / 60, at % 60), format!("{who}.{n}"));
            // The level does not matter here, so try all of them.
            let line =
                |level| format!("2026-08-21T14:{seconds}.000000Z {level:<5} {id:<7} {role:<8} {event:<8} {rest}");
            let lines = ["INFO", "WARN", "ERROR"].map(|level| line(level).parse::<Line>());
            let line =
                lines.into_iter().reduce(|a, b| a.or(b)).unwrap().unwrap_or_else(|error| panic!("{text}\n{error}"));
            run.add(&format!("{who}.log"), format!("{line}\n").as_bytes(), u64::MAX).unwrap();
        }
    }
    run
}
