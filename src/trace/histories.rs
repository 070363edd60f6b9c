//! Histories: separates the lines of a run by history. A server with a new data directory continues to write to the
//! same file. Its later lines belong to another log: slots and ballots start again, with other values.
//!
//! A server has a new data directory when its lines start again (an incarnation, or a line number in it, repeats). The
//! same holds when its BOOT line names another disk or another history. If all servers with lines on both sides changed
//! at the same time, the lines before are one history and the lines after another.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;

use super::event::Event;
use super::field::DiskName;
use super::line::{Line, LineId};
use super::parse::Run;
use crate::role::{ServerId, ServerSet};

/// The histories of a run.
#[derive(Clone, Debug)]
pub enum Histories {
    /// All lines belong to one history.
    One,
    /// Several histories, one after the other.
    Several(Vec<RunHistory>),
    /// Several histories that cannot be separated: the reason in a sentence, and a line that shows it.
    Mixed(String, usize),
}

/// The lines of one history.
#[derive(Clone, Debug)]
pub struct RunHistory {
    /// The lines.
    pub run: Run,
    /// The index of each line in the original run.
    pub at: Vec<usize>,
}

/// A server's change from one data directory to another.
#[derive(Clone, Copy)]
struct DirChange {
    server: ServerId,
    /// Time of its last line before the change.
    before: Timestamp,
    /// Its first line on the new directory, and the time of that line.
    first: usize,
    since: Timestamp,
}

/// A time during which servers changed their data directories.
struct HistoryBoundary {
    changes: Vec<DirChange>,
}

impl HistoryBoundary {
    fn begins(&self) -> Timestamp {
        self.changes.iter().map(|change| change.before).max().unwrap_or(Timestamp::MIN)
    }

    fn ends(&self) -> Timestamp {
        self.changes.iter().map(|change| change.since).min().unwrap_or(Timestamp::MAX)
    }

    /// Clients' lines between the last line of the old servers and the first of the new ones.
    fn between<'a>(&self, run: &'a Run) -> impl Iterator<Item = (usize, &'a Line)> + Clone {
        let (begins, ends) = (self.begins(), self.ends());
        let lines = run.lines.iter().map(|entry| &entry.line).enumerate();
        lines.filter(move |(_, line)| begins < line.time && line.time < ends && !is_of_server(&line.id))
    }

    /// When the new history begins: at its first server's line, or at an earlier first line of a new client. Before
    /// that, only replies of the old servers can still arrive.
    fn moment(&self, run: &Run) -> Timestamp {
        let between = self.between(run).map(|(_, line)| line);
        let replies = between.clone().filter(|line| line.parent.as_ref().is_some_and(is_of_server));
        let last_reply = replies.map(|line| line.time).max().unwrap_or(self.begins());
        let clients = between.filter(|line| line.id.n == 1 && last_reply < line.time).map(|line| line.time);
        clients.min().unwrap_or(self.ends())
    }

    /// A reply between the two histories from a server whose first lines on the new directory are missing. It may
    /// belong to either history.
    fn doubtful_reply(&self, run: &Run) -> Option<usize> {
        let is_whole = |change: &DirChange| {
            let id = &run.line(change.first).id;
            (id.process.incarnation(), id.n) == (1, 1)
        };
        let whole: ServerSet =
            self.changes.iter().filter(|change| is_whole(change)).map(|change| change.server).collect();
        let server = |line: &Line| line.parent.as_ref().and_then(|re| re.process.as_server());
        self.between(run).find(|(_, line)| server(line).is_some_and(|server| !whole.contains(server))).map(|(at, _)| at)
    }

    /// Whether this change can belong to the boundary: all old lines are before all new lines.
    fn includes(&self, change: DirChange) -> bool {
        self.begins().max(change.before) < self.ends().min(change.since)
    }
}

impl Histories {
    /// Separates the histories of a run.
    pub fn of(run: &Run) -> Histories {
        let servers = in_order(run);
        let mut changes: Vec<DirChange> =
            servers.iter().flat_map(|(server, lines)| changes(run, *server, lines)).collect();
        changes.sort_by_key(|change| change.since);
        let mut cuts: Vec<HistoryBoundary> = Vec::new();
        for change in changes {
            match cuts.last_mut().filter(|cut| cut.includes(change)) {
                Some(cut) => cut.changes.push(change),
                None => cuts.push(HistoryBoundary { changes: vec![change] }),
            }
        }
        let moments: Vec<Timestamp> = cuts.iter().map(|cut| cut.moment(run)).collect();
        let part_of = |at: usize| moments.partition_point(|moment| *moment <= run.line(at).time);
        for (server, lines) in &servers {
            if let Some(mixed) = lines.windows(2).find_map(|pair| overlap(run, &cuts, *server, pair, part_of)) {
                return mixed;
            }
        }
        if let Some(at) = reply_of_before(run, &servers) {
            let id = &run.line(at).id;
            let says = format!(
                "{id} is a reply of a server that had not started: it may be of a history whose lines are missing"
            );
            return Histories::Mixed(says, at);
        }
        let mut parts = vec![Vec::new(); moments.len() + 1];
        for at in 0..run.lines.len() {
            parts[part_of(at)].push(at);
        }
        if let Some(at) = cuts.iter().find_map(|cut| cut.doubtful_reply(run)).or_else(|| refers_across(run, &parts)) {
            let id = &run.line(at).id;
            let says = format!("{id} may be of either of two histories");
            return Histories::Mixed(says, at);
        }
        if let Some((says, at)) = parts.iter().find_map(|part| two_names(run, part)) {
            return Histories::Mixed(says, at);
        }
        if parts.len() == 1 {
            return Histories::One;
        }
        Histories::Several(parts.into_iter().map(|at| RunHistory { run: run.only(&at), at }).collect())
    }
}

fn is_of_server(id: &LineId) -> bool {
    id.process.as_server().is_some()
}

/// A line that follows only from a server's line of another history. By their clocks the two lines were apart.
fn refers_across(run: &Run, parts: &[Vec<usize>]) -> Option<usize> {
    if parts.len() == 1 {
        return None;
    }
    let mut part_of: HashMap<&LineId, BTreeSet<usize>> = HashMap::new();
    for (part, lines) in parts.iter().enumerate() {
        for id in lines.iter().map(|at| &run.line(*at).id).filter(|id| is_of_server(id)) {
            part_of.entry(id).or_default().insert(part);
        }
    }
    let is_across = |part: usize, at: usize| {
        let found = run.line(at).parent.as_ref().and_then(|re| part_of.get(re));
        found.is_some_and(|found| !found.contains(&part))
    };
    parts.iter().enumerate().find_map(|(part, lines)| lines.iter().copied().find(|at| is_across(part, *at)))
}

/// Each server's lines in the order in which they were written, even if incarnations repeat.
fn in_order(run: &Run) -> BTreeMap<ServerId, Vec<usize>> {
    let mut servers: BTreeMap<ServerId, Vec<usize>> = BTreeMap::new();
    for (at, entry) in run.lines.iter().enumerate() {
        if let Some(server) = entry.line.id.process.as_server() {
            servers.entry(server).or_default().push(at);
        }
    }
    for lines in servers.values_mut() {
        run.put_in_order(lines, |line| (line.id.process.incarnation(), line.id.n));
    }
    servers
}

/// What a BOOT line states about the data directory.
#[derive(Clone, Copy, Default)]
struct DirOfLine {
    disk: Option<DiskName>,
    history: Option<u32>,
}

impl DirOfLine {
    fn of(event: &Event) -> DirOfLine {
        let Event::Boot { history, disk, .. } = event else { return DirOfLine::default() };
        // A directory without a history can still join any.
        DirOfLine { disk: *disk, history: history.and_then(|history| history.0) }
    }

    fn is_other(self, then: DirOfLine) -> bool {
        fn differ<T: PartialEq>(before: Option<T>, then: Option<T>) -> bool {
            before.is_some() && then.is_some() && before != then
        }
        differ(self.disk, then.disk) || differ(self.history, then.history)
    }
}

/// The changes of a server from one data directory to another.
fn changes(run: &Run, server: ServerId, lines: &[usize]) -> Vec<DirChange> {
    let mut changes = Vec::new();
    let mut dir = DirOfLine::default();
    // Where the process of the present line began.
    let mut begun = 0;
    for place in 0..lines.len() {
        let line = run.line(lines[place]);
        let change = |place: usize| {
            let [before, first] = [lines[place - 1], lines[place]];
            DirChange { server, before: run.line(before).time, first, since: run.line(first).time }
        };
        if let Some(before) = place.checked_sub(1).map(|before| &run.line(lines[before]).id) {
            if line.id.process != before.process {
                begun = place;
            }
            // Line ids are ordered by incarnation and number.
            if line.id <= *before {
                changes.push(change(place));
                (dir, begun) = (DirOfLine::default(), place);
            }
        }
        let then = DirOfLine::of(&line.event);
        if dir.is_other(then) {
            if begun > 0 {
                changes.push(change(begun));
            }
            dir = DirOfLine::default();
        }
        dir.disk = then.disk.or(dir.disk);
        dir.history = then.history.or(dir.history);
    }
    changes
}

/// The servers whose lines may belong to several data directories without showing it. Some of their lines are missing,
/// and before or after the gap no BOOT line names the disk. If the servers' times never overlap and none of their lines
/// follow from each other's, it is all servers: they may belong to different histories.
pub(super) fn maybe_several_dirs(run: &Run) -> ServerSet {
    let servers = in_order(run);
    if !are_of_one_time(run, &servers) {
        return servers.into_keys().collect();
    }
    let is_next = |a: &usize, b: &usize| {
        let [a, b] = [&run.line(*a).id, &run.line(*b).id];
        a.process == b.process && a.n.checked_add(1) == Some(b.n)
    };
    let disk = |at: &usize| DirOfLine::of(&run.line(*at).event).disk;
    let may_be = |lines: &[usize]| {
        let disks: Vec<_> = lines.chunk_by(is_next).map(|part| part.iter().find_map(disk)).collect();
        // An incarnation that was killed before its BOOT line used the same disk as those before and after it.
        let known = disks.first().copied().flatten();
        disks.len() > 1
            && (known.is_none()
                || disks.last() != Some(&known)
                || disks.iter().flatten().any(|one| Some(*one) != known))
    };
    servers.into_iter().filter(|(_, lines)| may_be(lines)).map(|(server, _)| server).collect()
}

/// Whether the times of all servers overlap, one with the next, or lines of one follow from lines of another.
fn are_of_one_time(run: &Run, servers: &BTreeMap<ServerId, Vec<usize>>) -> bool {
    let span = |lines: &Vec<usize>| {
        let times = || lines.iter().map(|at| run.line(*at).time);
        Some((times().min()?, times().max()?))
    };
    let mut spans: Vec<(Timestamp, Timestamp, ServerId)> =
        servers.iter().filter_map(|(server, lines)| span(lines).map(|(from, to)| (from, to, *server))).collect();
    spans.sort();
    let mut groups: Vec<(Timestamp, ServerSet)> = Vec::new();
    for (from, to, server) in spans {
        match groups.last_mut().filter(|(end, _)| from <= *end) {
            Some((end, group)) => {
                *end = to.max(*end);
                group.insert(server);
            }
            None => groups.push((to, ServerSet::only(server))),
        }
    }
    groups.len() <= 1 || {
        let here = run.by_id();
        groups.windows(2).all(|pair| follows(run, servers, &here, pair[0].1, pair[1].1))
    }
}

/// Whether lines of these servers name lines of those, or vice versa, and most of them for the same request.
fn follows(
    run: &Run,
    servers: &BTreeMap<ServerId, Vec<usize>>,
    here: &BTreeMap<&LineId, usize>,
    these: ServerSet,
    those: ServerSet,
) -> bool {
    let (mut same, mut other) = (0, 0);
    for (server, lines) in servers {
        let towards = if these.contains(*server) { those } else { these };
        for line in lines.iter().map(|at| run.line(*at)) {
            let Some(re) =
                line.parent.as_ref().filter(|re| re.process.as_server().is_some_and(|to| towards.contains(to)))
            else {
                continue;
            };
            match here.get(re) {
                Some(at) if run.line(*at).req == line.req => same += 1,
                _ => other += 1,
            }
        }
    }
    same > other
}

/// A reply of a server that, by the clocks, had not written its first line yet, and that follows from none of its
/// lines. It may belong to a history whose lines are missing.
fn reply_of_before(run: &Run, servers: &BTreeMap<ServerId, Vec<usize>>) -> Option<usize> {
    let here = run.by_id();
    (0..run.lines.len()).find(|at| {
        let line = run.line(*at);
        let Event::Response { server: Some(server), .. } = line.event else { return false };
        let Some(first) = servers.get(&server).and_then(|lines| lines.first()).map(|at| run.line(*at)) else {
            return false;
        };
        let is_born_here = (first.id.process.incarnation(), first.id.n) == (1, 1);
        let cause = line.parent.as_ref().filter(|re| is_of_server(re)).and_then(|re| here.get(re));
        let is_known = cause.is_some_and(|cause| run.line(*cause).req == line.req);
        is_born_here && line.time < first.time && !is_known
    })
}

/// Two consecutive lines of a server belong to different histories if, and only if, the server changed its data
/// directory between them.
fn overlap(
    run: &Run,
    cuts: &[HistoryBoundary],
    server: ServerId,
    pair: &[usize],
    part: impl Fn(usize) -> usize,
) -> Option<Histories> {
    let [before, then] = [part(pair[0]), part(pair[1])];
    let is_change = cuts.iter().flat_map(|cut| &cut.changes).any(|change| change.first == pair[1]);
    if before <= then && is_change == (before < then) {
        return None;
    }
    let cannot = "these lines are of more than one history and cannot be separated";
    let says = if is_change || then < before {
        format!(
            "{server} has a new data directory from {} on, but its clock contradicts that: {cannot}",
            run.line(pair[1]).id
        )
    } else {
        let DirChange { server: new, first, .. } = cuts[before].changes[0];
        format!("{new} has a new data directory from {} on, but {server} does not: {cannot}", run.line(first).id)
    };
    Some(Histories::Mixed(says, pair[1]))
}

/// Whether two servers of one history name it differently.
fn two_names(run: &Run, part: &[usize]) -> Option<(String, usize)> {
    let mut named = part.iter().filter_map(|at| Some((*at, DirOfLine::of(&run.line(*at).event).history?)));
    let (first, name) = named.next()?;
    let (other, _) = named.find(|(_, other)| *other != name)?;
    let (first, id) = (&run.line(first).id, &run.line(other).id);
    Some((format!("{first} and {id} name two histories, and their lines cannot be separated"), other))
}
