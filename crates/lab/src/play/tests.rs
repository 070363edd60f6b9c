//! Tests of whole games: the exercises, random walks in every mode, and what the program finds by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use paxos_kv::paxos::{Ballot, Slot};
use paxos_kv::random::Random;
use paxos_kv::role::RoleKind;
use paxos_kv::trace::audit::{Audit, AuditVerdict};

use super::choice::{Choice, codes};
use super::exercise::{Exercise, Mode};
use super::export::{ExportKind, export};
use super::game::Game;
use super::play_command::check;
use super::search::{Policy, SearchBounds, run, search, wander};
use super::view::{lines_of, view};
use super::votes::RowState;
use super::{exercises, terminal};
use crate::sim::network::Endpoint;

/// Three servers with two clients, small enough to try all that can follow.
const SMALL: &str = "\
name small
title small
servers 3
client c1@s1 put city Lyon
client c2@s3 put city Oslo
text small
goal Lyon: chosen(first, Lyon)
why 5 src/paxos/rules.rs A majority.
par 4
";

fn small() -> Exercise {
    Exercise::read(SMALL).unwrap()
}

fn named(name: &str) -> Exercise {
    exercises::named(name).unwrap_or_else(|| panic!("there is no exercise {name}")).1
}

/// A game after a random walk of this number of choices.
fn walk(exercise: &Exercise, mode: Mode, seed: u64, steps: usize) -> Game {
    let mut random = Random::new(seed, 1);
    let mut game = Game::begin(exercise, mode).unwrap();
    for _ in 0..steps {
        let Some(choice) = wander(&game.table, &mut random) else { break };
        game.choose(choice);
    }
    game
}

// ---- exercises

#[test]
fn every_solution_reaches_its_goals_with_its_last_step_in_par() {
    let all = exercises::all();
    assert_eq!(all.len(), 18);
    for exercise in all {
        assert_eq!(check(&exercise), Ok(exercise.par), "{}", exercise.name);
        assert_eq!((exercise.hints.len(), exercise.goals.is_empty()), (2, false), "{}", exercise.name);
        let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(&exercise.why.file);
        assert!(source.exists(), "{}: {} is no file", exercise.name, exercise.why.file);
    }
}

#[test]
fn check_finds_a_par_that_is_wrong_and_a_goal_that_is_missed() {
    let mut exercise = named("chosen");
    exercise.par += 1;
    assert!(check(&exercise).unwrap_err().contains("7 steps"));
    exercise.par -= 1;
    exercise.solution.pop();
    assert!(check(&exercise).unwrap_err().contains("Lyon is chosen"));
    exercise.solution.push("kill s1".parse().unwrap());
    assert!(check(&exercise).is_err());
    let mut exercise = named("highest");
    exercise.nevers = exercise.goals.clone();
    assert!(check(&exercise).unwrap_err().contains("never"));
}

#[test]
fn impossible_exercises_are_possible_in_their_mode_alone() {
    for exercise in exercises::all().into_iter().filter(|one| one.is_impossible_when_safe) {
        let game = Game::play(&exercise, exercise.mode, &exercise.solution).unwrap();
        assert!(game.broken.is_some() && game.is_done(), "{}", exercise.name);
        let safe = Game::play(&exercise, Mode::Safe, &exercise.solution).unwrap();
        assert!(safe.broken.is_none() && !safe.is_done(), "{} in the safe mode", exercise.name);
    }
}

#[test]
fn lost_memory_names_both_quorums_and_the_step_that_forgot() {
    let exercise = named("lost-memory");
    let shown = view(&exercise, 12, exercise.mode, &exercise.solution, false).unwrap();
    let json = serde_json::to_value(&shown).unwrap();
    let broken = &json["broken"];
    assert_eq!((&broken["step"], &broken["rule"]), (&16.into(), &6.into()));
    assert_eq!(broken["sides"][0]["quorum"], serde_json::json!([1, 2, 3]));
    assert_eq!(broken["sides"][1]["quorum"], serde_json::json!([3, 4, 5]));
    assert_eq!((&broken["both"], &broken["forgot"]["server"]), (&serde_json::json!([3]), &3.into()));
    assert_eq!(broken["forgot"]["step"], 9);
    assert_eq!(json["mode"]["unsafe"], true);
}

#[test]
fn third_hint_is_the_next_step_or_the_way_back() {
    let exercise = named("chosen");
    let first: Choice = "deliver c1>s1 REQUEST".parse().unwrap();
    let hint = |choices: &[Choice]| Game::play(&exercise, Mode::Safe, choices).unwrap().next_step();
    assert_eq!(hint(&[]).unwrap(), "Next: deliver c1>s1 REQUEST.");
    assert_eq!(hint(&[first]).unwrap(), "Next: deliver s1>s2 PREPARE.");
    let away = hint(&[first, "kill s5".parse().unwrap()]).unwrap();
    assert_eq!(away, "Go back to step 1, and then: deliver s1>s2 PREPARE.");
    assert_eq!(hint(&exercise.solution), None);
}

#[test]
fn stars_are_for_goals_par_and_doing_without_the_last_hint() {
    let exercise = named("chosen");
    let stars = |extra: usize, is_hinted| {
        let mut choices: Vec<Choice> =
            vec!["cut s4-s5".parse().unwrap(), "join s4-s5".parse().unwrap()].into_iter().cycle().take(extra).collect();
        choices.extend(&exercise.solution);
        Game::play(&exercise, Mode::Safe, &choices).unwrap().stars(is_hinted)
    };
    assert_eq!(
        [stars(0, false), stars(3, false), stars(4, false)],
        [3, 2, 1],
        "par is 7, and 10 are half as much more"
    );
    assert_eq!(stars(0, true), 2);
    let all_but_one = &exercise.solution[..exercise.solution.len() - 1];
    assert_eq!(Game::play(&exercise, Mode::Safe, all_but_one).unwrap().stars(false), 0);
}

// ---- the same choices

#[test]
fn same_choices_give_the_same_view_in_any_thread_and_by_any_way() {
    for name in ["duel", "leader", "blocked", "lost-memory"] {
        let exercise = named(name);
        let shown = |exercise: &Exercise| {
            let shown = view(exercise, 1, exercise.mode, &exercise.solution, false).unwrap();
            serde_json::to_string(&shown).unwrap()
        };
        let here = shown(&exercise);
        let other = exercise.source.clone();
        let there = std::thread::spawn(move || {
            let exercise = Exercise::read(&other).unwrap();
            serde_json::to_string(&view(&exercise, 1, exercise.mode, &exercise.solution, false).unwrap()).unwrap()
        });
        assert_eq!(here, there.join().unwrap(), "{name}");
        let whole = Game::play(&exercise, exercise.mode, &exercise.solution).unwrap();
        let (before, rest) = exercise.solution.split_at(exercise.solution.len() / 2);
        let mut parts = Game::play(&exercise, exercise.mode, before).unwrap();
        rest.iter().for_each(|choice| parts.choose(*choice));
        assert_eq!(whole.table.hash(), parts.table.hash(), "{name}");
        let other = Game::play(&exercise, exercise.mode, before).unwrap();
        assert_ne!(whole.table.hash(), other.table.hash(), "{name}: fewer choices are another run");
    }
}

#[test]
fn choice_that_does_not_fit_changes_nothing_and_does_not_count() {
    let exercise = named("chosen");
    let strange: Choice = "deliver s4>s5 SNAPSHOT".parse().unwrap();
    let mut choices = exercise.solution.clone();
    choices.insert(3, strange);
    let game = Game::play(&exercise, Mode::Safe, &choices).unwrap();
    let plain = Game::play(&exercise, Mode::Safe, &exercise.solution).unwrap();
    assert_eq!((game.table.hash(), game.stars(false)), (plain.table.hash(), 3));
    assert!(game.steps[3].skipped.as_ref().unwrap().contains("under way"));
}

/// For each state of a walk: what is under way and armed is exactly what the list has, and every choice of the list can
/// be played and leaves a trace.
#[test]
fn list_has_all_that_is_possible_and_nothing_else() {
    let multi = named("leader");
    let commit = named("blocked");
    for (exercise, mode, seed) in
        [(small(), Mode::Safe, 1), (small(), Mode::Lost, 2), (multi, Mode::Safe, 3), (commit, Mode::Safe, 4)]
    {
        let made = walk(&exercise, mode, seed, 40).fitting();
        for length in (0..made.len()).step_by(13) {
            let game = Game::play(&exercise, mode, &made[..length]).unwrap();
            let choices = game.table.choices();
            let listed: BTreeSet<String> = choices.iter().map(|one| one.choice.code()).collect();
            assert_eq!(listed.len(), choices.len(), "a choice is listed twice");
            let frames = game.table.sim.frames_in_flight().len();
            let deliveries = choices.iter().filter(|one| matches!(one.choice, Choice::Deliver(_))).count();
            assert_eq!(frames, deliveries);
            let roles = game.table.sim.plan.protocol.roles_as_named();
            let armed: usize =
                game.table.sim.servers.iter().flat_map(|one| roles.iter().map(|role| one.armed(*role).len())).sum();
            let timers = choices.iter().filter(|one| matches!(one.choice, Choice::Timer(..))).count();
            assert_eq!(armed, timers, "a timer has no name");
            let doubled = choices.iter().filter_map(|one| match one.choice {
                Choice::Deliver(name)
                    if matches!(name.from, Endpoint::Server(_)) && matches!(name.to, Endpoint::Server(_)) =>
                {
                    Some([Choice::Drop(name), Choice::Double(name)])
                }
                Choice::Deliver(name) => Some([Choice::Drop(name), Choice::Deliver(name)]),
                _ => None,
            });
            let possible = choices.iter().filter(|one| one.off.is_none()).map(|one| one.choice);
            // Every third one: the list is long, and each takes a whole replay.
            for choice in possible.chain(doubled.flatten()).step_by(3) {
                let mut longer = made[..length].to_vec();
                longer.push(choice);
                let next = Game::play(&exercise, mode, &longer).unwrap();
                let last = next.steps.last().unwrap();
                assert_eq!(last.skipped, None, "{choice} after {}", codes(&made[..length]));
                let told = view(&exercise, 0, mode, &longer, false).unwrap().steps.pop().unwrap();
                assert!(told.sentence.len() > 10, "{choice} is not told");
            }
        }
    }
}

#[test]
fn cut_link_holds_what_is_under_way_and_loses_what_is_sent() {
    let exercise = named("chosen");
    let read = |lines: &str| super::choice::read_lines(lines).unwrap();
    let begun = "deliver c1>s1 REQUEST\ndeliver s1>s3 PREPARE\ncut s1-s2\n";
    let held = Game::play(&exercise, Mode::Safe, &read(&format!("{begun}deliver s1>s2 PREPARE"))).unwrap();
    assert!(held.steps[3].skipped.as_ref().unwrap().contains("s1 and s2 is cut"), "{:?}", held.steps[3]);
    let lost = "deliver s1>s4 PREPARE\ndeliver s3,s4>s1 PROMISE\n";
    let sent = Game::play(&exercise, Mode::Safe, &read(&format!("{begun}{lost}"))).unwrap();
    assert_eq!(sent.steps.last().unwrap().lost_on_cuts, 1, "the ACCEPT to s2");
    let joined = format!("{begun}{lost}join s1-s2\ndeliver s1>s2 PREPARE\ndeliver s1>s2 ACCEPT");
    let joined = Game::play(&exercise, Mode::Safe, &read(&joined)).unwrap();
    let fitted: Vec<bool> = joined.steps.iter().rev().take(3).map(|step| step.number.is_some()).collect();
    assert_eq!(fitted, [false, true, true], "only what was under way arrives");
}

#[test]
fn disk_that_was_lost_stays_lost_when_the_process_ends() {
    let exercise = named("lost-memory");
    let mut choices = exercise.solution[..9].to_vec();
    choices.push("kill s3".parse().unwrap());
    for (mode, is_kept) in [(Mode::Lost, false), (Mode::Safe, true)] {
        let mut game = Game::play(&exercise, mode, &choices).unwrap();
        let server = paxos_kv::role::ServerId(3);
        let (promised, accepted) = game.table.acceptor(server);
        let has_value = accepted.contains_key(&game.table.first);
        assert_eq!((promised.round > 0, has_value), (is_kept, is_kept), "{}, down", mode.name());
        game.choose("start s3".parse().unwrap());
        assert_eq!(game.table.acceptor(server), (promised, accepted), "{}, up again", mode.name());
    }
}

// ---- guarantees

/// What holds after every step in a safe mode: nothing is broken, and no proposal contradicts what may be chosen below.
fn assert_safe(exercise: &Exercise, mode: Mode, seed: u64, steps: usize) -> Game {
    let mut random = Random::new(seed, 1);
    let mut game = Game::begin(exercise, mode).unwrap();
    let mut known: BTreeSet<(Slot, Ballot)> = BTreeSet::new();
    for _ in 0..steps {
        let Some(choice) = wander(&game.table, &mut random) else { break };
        let before = game.ballots.clone();
        game.choose(choice);
        assert!(game.broken.is_none(), "seed {seed}: {:?} after {}", game.broken, codes(&game.fitting()));
        for ((slot, ballot), value) in &game.ballots.proposed {
            if known.insert((*slot, *ballot)) {
                let lower = before.rows(*slot).into_iter().filter(|row| row.ballot < *ballot);
                let alive = lower.filter(|row| matches!(row.state, RowState::May | RowState::Chosen));
                let contradicted = alive.filter(|row| row.value.as_ref().is_some_and(|one| one != value)).count();
                assert_eq!(contradicted, 0, "seed {seed}: {ballot} in slot {slot} after {}", codes(&game.fitting()));
            }
        }
    }
    game
}

fn safe_walks(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let mut played =
            vec![assert_safe(&small(), Mode::Safe, seed, 90), assert_safe(&named("adopt"), Mode::Safe, seed, 90)];
        played.push(assert_safe(&named("leader"), Mode::Safe, seed, 90));
        played.push(assert_safe(&named("stale-read"), Mode::Safe, seed, 90));
        played.push(assert_safe(&named("blocked"), Mode::Safe, seed, 60));
        for mut game in played {
            let run = lines_of(&mut game).unwrap();
            let audit = Audit::new(&run);
            assert_ne!(audit.verdict(), AuditVerdict::Violated, "seed {seed}: {}", audit.explain(&run));
        }
        // The audit counts majorities, so it says nothing of other quorums.
        assert_safe(&named("quorums"), Mode::Quorums(4, 2), seed, 90);
    }
}

#[test]
fn random_walks_break_no_safe_mode() {
    safe_walks(0..12);
}

#[test]
#[ignore = "10,000 walks take a quarter of an hour"]
fn many_random_walks_break_no_safe_mode() {
    safe_walks(1_000..2_667);
}

#[test]
fn solutions_in_the_safe_mode_are_proved_by_the_audit() {
    for exercise in exercises::all().into_iter().filter(|one| one.mode == Mode::Safe) {
        let mut game = Game::play(&exercise, Mode::Safe, &exercise.solution).unwrap();
        let run = lines_of(&mut game).unwrap();
        let audit = Audit::new(&run);
        assert_eq!(audit.verdict(), AuditVerdict::Proved, "{}: {}", exercise.name, audit.explain(&run));
    }
}

#[test]
fn search_breaks_the_unsafe_modes_and_finds_nothing_in_the_safe_one() {
    let never = || false;
    // A machine under load is slow; the number of walks bounds the search too.
    let bounds = |walks| SearchBounds { time: Duration::from_secs(120), walks, is_stopped: &never };
    for name in ["lost-memory", "quorums"] {
        let exercise = named(name);
        let found = search(&exercise, exercise.mode, &[], 1, &bounds(2_000)).unwrap().found;
        let found = found.unwrap_or_else(|| panic!("{name}: nothing was found"));
        let game = Game::play(&exercise, exercise.mode, &found).unwrap();
        assert!(game.broken.is_some(), "{name}: {}", codes(&found));
        assert!(found.len() <= 40, "{name}: {} choices are not short", found.len());
        let safe = search(&exercise, Mode::Safe, &[], 1, &bounds(10)).unwrap();
        assert_eq!((safe.found, safe.walks), (None, 10), "{name}");
    }
    let stopped = || true;
    let bounds = SearchBounds { time: Duration::from_secs(5), walks: 9, is_stopped: &stopped };
    assert_eq!(search(&small(), Mode::Safe, &[], 1, &bounds).unwrap().walks, 0, "the page has gone");
}

/// From some states of random walks, every sequence of three deliveries: what is chosen by it at a ballot is what the
/// table called possible at that ballot.
#[test]
fn what_is_chosen_was_called_possible() {
    let exercise = small();
    let mut chosen = 0;
    for seed in 0..5 {
        let start = walk(&exercise, Mode::Safe, seed, 12).fitting();
        let game = Game::play(&exercise, Mode::Safe, &start).unwrap();
        explore(&exercise, &start, &game, 3, &mut chosen);
    }
    assert!(chosen > 0, "in no continuation is anything chosen");
}

fn explore(exercise: &Exercise, choices: &[Choice], origin: &Game, depth: usize, chosen: &mut usize) {
    let game = Game::play(exercise, Mode::Safe, choices).unwrap();
    for slot in game.ballots.slots(game.table.first) {
        for row in game.ballots.rows(slot).into_iter().filter(|row| row.state == RowState::Chosen) {
            let before = origin.ballots.rows(slot).into_iter().find(|one| one.ballot == row.ballot);
            let was_possible = match before {
                Some(one) => one.state != RowState::Never,
                // Later ballots are not in the table yet.
                None => origin.ballots.prepared.keys().all(|ballot| *ballot < row.ballot),
            };
            assert!(was_possible, "{} in slot {slot} after {}", row.ballot, codes(choices));
            *chosen += 1;
        }
    }
    if depth > 0 {
        let open = game.table.choices().into_iter().filter(|one| one.off.is_none()).map(|one| one.choice);
        for choice in open.filter(|choice| matches!(choice, Choice::Deliver(_))).take(7) {
            let longer: Vec<Choice> = choices.iter().copied().chain([choice]).collect();
            explore(exercise, &longer, origin, depth - 1, chosen);
        }
    }
}

/// The other direction: a ballot that the table calls possible is chosen if its ACCEPTs arrive.
#[test]
fn what_is_called_possible_is_chosen_if_its_accepts_arrive() {
    let exercise = small();
    let mut tried = 0;
    for seed in 0..150 {
        let start = walk(&exercise, Mode::Safe, seed, 14).fitting();
        let game = Game::play(&exercise, Mode::Safe, &start).unwrap();
        for row in game.ballots.rows(game.table.first).into_iter().filter(|row| row.state == RowState::May) {
            let accepts = game.table.frames().into_iter().filter(|one| {
                one.name.name == "ACCEPT" && one.text.ballot == Some(row.ballot) && !one.frame.is_doubled
            });
            let to: Vec<Choice> = accepts.map(|one| Choice::Deliver(one.name)).collect();
            let is_up = |server| game.table.sim.is_role_up(server, RoleKind::Acceptor);
            if to.len() < 2 || !game.table.cluster().iter().all(is_up) {
                continue;
            }
            let longer: Vec<Choice> = start.iter().copied().chain(to).collect();
            let next = Game::play(&exercise, Mode::Safe, &longer).unwrap();
            let rows = next.ballots.rows(next.table.first);
            let same = rows.iter().find(|one| one.ballot == row.ballot).map(|one| one.state);
            assert_eq!(same, Some(RowState::Chosen), "{} after {}", row.ballot, codes(&longer));
            tried += 1;
        }
    }
    assert!(tried > 3, "only {tried} ballots had their ACCEPTs under way");
}

// ---- what the program chooses, prints and exports

#[test]
fn run_in_order_gets_the_value_chosen_and_stops_at_goals() {
    let exercise = named("chosen");
    let mut choices = Vec::new();
    let mut whys = Vec::new();
    for _ in 0..10 {
        let game = Game::play(&exercise, Mode::Safe, &choices).unwrap();
        if game.is_done() {
            break;
        }
        let ran = run(game, Policy::InOrder, 1, 100);
        (choices, _) = (ran.choices, whys.push(ran.why));
    }
    assert!(whys.iter().any(|why| why.contains("A goal is met: Lyon is chosen")), "{whys:?}");
}

#[test]
fn duelling_adversary_chooses_nothing_for_a_hundred_steps() {
    let exercise = named("duel");
    let mut choices = Vec::new();
    while choices.len() < 100 {
        let ran = run(Game::play(&exercise, Mode::Safe, &choices).unwrap(), Policy::Duel, 1, 100);
        assert!(ran.added > 0, "{}", ran.why);
        choices = ran.choices;
    }
    let game = Game::play(&exercise, Mode::Safe, &choices).unwrap();
    assert!(game.ballots.chosen(game.table.first).is_empty());
    let ballots = game.ballots.prepared.keys().filter(|ballot| game.ballots.prepared[ballot] >= game.table.first);
    assert!(ballots.count() > 6, "the proposers go on");
}

#[test]
fn exported_test_is_an_exercise_that_plays_the_same_choices() {
    for name in ["adopt", "quorums"] {
        let exercise = named(name);
        let game = Game::play(&exercise, exercise.mode, &exercise.solution).unwrap();
        let hash = game.table.hash();
        let text = export(game, ExportKind::Test).unwrap().text;
        let again = Exercise::read(&text).unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
        assert_eq!(check(&again), Ok(exercise.par), "{name}\n{text}");
        assert_eq!(Game::play(&again, again.mode, &again.solution).unwrap().table.hash(), hash);
    }
}

#[test]
fn exports_are_what_they_say() {
    let exercise = named("adopt");
    let exported = |kind| export(Game::play(&exercise, Mode::Safe, &exercise.solution).unwrap(), kind).unwrap().text;
    let text = exported(ExportKind::Text);
    assert_eq!(super::choice::read_lines(&text).unwrap(), exercise.solution);
    assert!(text.contains("3 of 3 goals met in 14 steps"), "{text}");
    assert!(exported(ExportKind::Audit).contains("PROVED"));
    assert!(exported(ExportKind::Timeline).starts_with("<!doctype html>"));
    let lines = exported(ExportKind::Lines);
    let times: Vec<&str> = lines.lines().map(|line| &line[..27]).collect();
    assert!(times.is_sorted() && lines.contains("adopted=3.1"), "{lines}");
}

#[test]
fn exercise_is_played_at_the_terminal() {
    let exercise = named("chosen");
    let play = |input: &str| {
        let mut out = Vec::new();
        let done = terminal::play(&exercise, Mode::Safe, input.as_bytes(), &mut out).unwrap();
        (done, String::from_utf8(out).unwrap())
    };
    let solution: String = exercise.solution.iter().map(|choice| format!("{choice}\n")).collect();
    let (done, text) = play(&format!("{solution}votes\nstate\nsave\nquit\n"));
    assert!(done && text.contains("3 of 3 stars") && text.contains("Lyon is chosen: s1, s2 and s3"), "{text}");
    assert!(text.contains(&solution), "the choices can be saved");
    let (done, text) = play("1\nfly\ndeliver s1>s9 PREPARE\ndrop 1\nundo\nhint\nhint\nhint\nhelp\n");
    assert!(!done && text.contains("'fly' is not a choice") && text.contains("Next: deliver s1>s2 PREPARE"), "{text}");
    let (_, text) = play("deliver s1>s2 PREPARE\n");
    assert!(text.contains("Not possible: no s1>s2 PREPARE is under way."), "{text}");
}

#[test]
fn refusal_leads_to_the_step_of_the_promise() {
    let exercise = named("duel");
    let shown = view(&exercise, 9, Mode::Safe, &exercise.solution, false).unwrap();
    let json = serde_json::to_value(&shown).unwrap();
    let steps = json["steps"].as_array().unwrap();
    let refusal = steps.iter().find(|step| step["text"] == "deliver s1>s2 ACCEPT").unwrap();
    let why = &refusal["why"];
    assert_eq!((&why["rule"], &why["file"]), (&3.into(), &"src/paxos/acceptor.rs".into()));
    let promise = &steps[why["step"].as_u64().unwrap() as usize - 1];
    assert_eq!(promise["text"], "deliver s5>s2 PREPARE");
}

/// Whether fewer steps than par reach the goals, by breadth: all states of the same hash count once.
#[test]
#[ignore = "a search for shorter solutions takes minutes"]
fn no_shorter_solution_is_found_for_the_first_exercises() {
    for exercise in exercises::all().into_iter().take(8) {
        let end = std::time::Instant::now() + Duration::from_secs(60);
        let mut random = Random::new(1, 2);
        let mut walks = 0;
        while std::time::Instant::now() < end {
            // A random part of the solution, and then random choices: a shorter way would mostly share its beginning.
            let kept = random.within(0..=exercise.solution.len() as u64 - 1) as usize;
            let mut game = Game::play(&exercise, exercise.mode, &exercise.solution[..kept]).unwrap();
            while game.table.steps + 1 < exercise.par && !game.is_done() {
                let Some(choice) = wander(&game.table, &mut random) else { break };
                game.choose(choice);
            }
            assert!(!game.is_done(), "{}: {} steps: {}", exercise.name, game.table.steps, codes(&game.fitting()));
            walks += 1;
        }
        println!("{}: {walks} walks, none shorter than {}", exercise.name, exercise.par);
    }
}
