//! A game: an exercise with the choices of its reader, from the set-up to the last choice. It knows which goals were
//! met at which step, and which choices did not fit.

use paxos_kv::paxos::ProposerPhase;
use paxos_kv::role::ServerId;

use super::choice::Choice;
use super::exercise::{Exercise, Mode};
use super::facts::Break;
use super::message::MessageText;
use super::predicate::{Fact, Predicate, SlotName};
use super::table::Table;
use super::votes::Ballots;
use crate::sim::network::Endpoint;

/// The shortest stretch of steps that counts as one that can be played for ever.
const STRETCH_MIN: usize = 8;
/// How often the program plays such a stretch again.
const STRETCH_REPEATS: usize = 10;

/// One choice that was made.
#[derive(Clone, Debug)]
pub struct Step {
    /// The choice.
    pub choice: Choice,
    /// The number of the step among those that fitted; None if it did not.
    pub number: Option<usize>,
    /// Why the choice did not fit; then it has changed nothing.
    pub skipped: Option<String>,
    /// What the message said, if the choice is about one.
    pub message: Option<MessageText>,
    /// Why the message was lost on arrival, if it was.
    pub lost: Option<String>,
    /// What it meant to the receiver, where no log line says so.
    pub after: Option<String>,
    /// The goals that were met after it.
    pub goals: Vec<usize>,
    /// It broke a guarantee, or did what the exercise says must never happen.
    pub broke: bool,
    /// Number of messages that were lost at once on cut links.
    pub lost_on_cuts: u64,
}

/// An exercise that is being played.
pub struct Game {
    /// The exercise.
    pub exercise: Exercise,
    /// The cluster after the last choice.
    pub table: Table,
    /// The choices.
    pub steps: Vec<Step>,
    /// For each goal, the step after which it was met; 0 is the set-up.
    pub goals: Vec<Option<usize>>,
    /// The same for what must never happen.
    pub nevers: Vec<Option<usize>>,
    /// The guarantee that is broken, and the step at which it was.
    pub broken: Option<(usize, Break)>,
    /// What the vote table is computed from, after the last choice.
    pub ballots: Ballots,
}

impl Game {
    /// Begins an exercise in a mode.
    pub fn begin(exercise: &Exercise, mode: Mode) -> Result<Game, String> {
        let exercise = exercise.clone();
        let table = Table::new(&exercise, mode)?;
        let (goals, nevers) = (vec![None; exercise.goals.len()], vec![None; exercise.nevers.len()]);
        let ballots = table.ballots();
        let mut game = Game { exercise, table, steps: Vec::new(), goals, nevers, broken: None, ballots };
        game.judge();
        Ok(game)
    }

    /// Plays an exercise with these choices. Those that do not fit are skipped.
    pub fn play(exercise: &Exercise, mode: Mode, choices: &[Choice]) -> Result<Game, String> {
        let mut game = Game::begin(exercise, mode)?;
        choices.iter().for_each(|choice| game.choose(*choice));
        Ok(game)
    }

    /// Plays one more choice, or skips it.
    pub fn choose(&mut self, choice: Choice) {
        let before = self.lost_on_cuts();
        let (message, lost) = match choice {
            Choice::Deliver(name) | Choice::Drop(name) | Choice::Double(name) => {
                let found = self.table.frames().into_iter().find(|one| one.name == name);
                let lost = found.as_ref().and_then(|one| self.table.sim.loss_on_arrival(&one.frame));
                (found.map(|one| one.text), lost.filter(|_| matches!(choice, Choice::Deliver(_))))
            }
            _ => (None, None),
        };
        let skipped = self.table.play(&choice).err();
        let number = skipped.is_none().then_some(self.table.steps);
        let lost_on_cuts = self.lost_on_cuts() - before;
        let after = if lost.is_none() && number.is_some() { self.effect(&choice, message.as_ref()) } else { None };
        self.steps.push(Step {
            choice,
            number,
            skipped,
            message,
            lost,
            after,
            goals: Vec::new(),
            broke: false,
            lost_on_cuts,
        });
        if number.is_some() {
            self.judge();
        }
    }

    /// What an answer meant to the proposer that got it: it writes a line only when it goes on.
    fn effect(&self, choice: &Choice, message: Option<&MessageText>) -> Option<String> {
        let (Choice::Deliver(name), Some(message)) = (choice, message) else { return None };
        let (Endpoint::Server(to), "promise" | "refused") = (name.to, message.kind) else { return None };
        let process = self.table.sim.servers[usize::from(to.0) - 1].process.as_ref()?;
        let phase = process.proposer.as_ref()?.role().phase();
        let (needed, _) = self.table.sim.plan.quorums().sizes();
        match (phase, message.ballot?) {
            (ProposerPhase::Preparing { ballot, promised, refused }, of) if ballot == of => {
                let refused = match refused.len() {
                    0 => String::new(),
                    count => format!(", and {count} have refused"),
                };
                Some(format!("{to}'s proposer has {} of {needed} promises for {ballot}{refused}.", promised.len()))
            }
            (ProposerPhase::Proposing { ballot, .. }, of) if ballot == of && message.kind == "promise" => None,
            (ProposerPhase::Proposing { ballot, refused, .. }, of) if ballot == of => {
                Some(format!("{to}'s proposer knows that {} have refused {ballot}.", refused.len()))
            }
            (_, of) => Some(format!("{to}'s proposer ignores it: {of} is no longer its ballot.")),
        }
    }

    /// Evaluates goals and guarantees after a step.
    fn judge(&mut self) {
        self.ballots = self.table.ballots();
        let step = self.table.steps;
        // Every predicate is evaluated, so that each `once` sees every step.
        let held: Vec<bool> = self.exercise.goals.iter().map(|goal| self.holds(&goal.predicate)).collect();
        let done: Vec<bool> = self.exercise.nevers.iter().map(|never| self.holds(&never.predicate)).collect();
        let mut met = Vec::new();
        for (at, holds) in held.into_iter().enumerate() {
            if self.goals[at].is_none() && holds {
                self.goals[at] = Some(step);
                met.push(at);
            }
            if self.goals[at].is_none() {
                break;
            }
        }
        let mut broke = false;
        for (at, _) in done.into_iter().enumerate().filter(|(_, done)| *done) {
            broke |= self.nevers[at].is_none();
            self.nevers[at].get_or_insert(step);
        }
        if self.broken.is_none()
            && let Some(found) = self.table.broken(&self.ballots)
        {
            self.broken = Some((step, found));
            broke = true;
        }
        if let Some(last) = self.steps.last_mut() {
            (last.goals, last.broke) = (met, broke);
        }
    }

    /// Whether a predicate holds now; for tests and searches.
    pub fn holds(&self, predicate: &Predicate) -> bool {
        predicate.holds(&|fact: &_| self.says(fact))
    }

    fn says(&self, fact: &Fact) -> bool {
        if *fact == Fact::Endless { self.is_endless() } else { self.table.holds(fact, &self.ballots) }
    }

    /// Whether the last steps are the same stretch twice, and the same stretch ten times more chooses nothing either.
    fn is_endless(&self) -> bool {
        let made = self.fitting();
        let nothing = Predicate::Fact(Fact::Chosen(SlotName::First(0), None));
        if self.holds(&nothing) {
            return false;
        }
        let is_twice =
            |length: &usize| made[made.len() - length..] == made[made.len() - 2 * length..made.len() - length];
        let stretch = (STRETCH_MIN..=made.len() / 2).find(is_twice);
        let Some(length) = stretch else { return false };
        let again = made[made.len() - length..].iter().cycle().take(STRETCH_REPEATS * length);
        let all: Vec<Choice> = made.iter().chain(again).copied().collect();
        // The goals do not matter there, and looking for this one again would never end.
        let bare = Exercise { goals: Vec::new(), nevers: Vec::new(), ..self.exercise.clone() };
        let played = Game::play(&bare, self.table.mode, &all);
        played.is_ok_and(|game| game.steps.iter().all(|step| step.number.is_some()) && !game.holds(&nothing))
    }

    /// Whether all goals are met, and nothing has happened that never must.
    pub fn is_done(&self) -> bool {
        self.goals.iter().all(Option::is_some) && self.nevers.iter().all(Option::is_none)
    }

    /// Number of steps up to the last goal; of all steps while goals are missing.
    pub fn steps_needed(&self) -> usize {
        let last = self.goals.iter().copied().collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().max());
        last.unwrap_or(self.table.steps)
    }

    /// The stars: 1 for the goals, 2 for at most one and a half times the par, 3 for par without the last hint.
    pub fn stars(&self, is_hinted: bool) -> u8 {
        if !self.is_done() {
            return 0;
        }
        self.stars_for(self.steps_needed(), is_hinted)
    }

    /// The stars for this number of steps.
    pub fn stars_for(&self, steps: usize, is_hinted: bool) -> u8 {
        let par = self.exercise.par;
        let most = if is_hinted { 2 } else { 3 };
        if steps <= par {
            most
        } else if 2 * steps <= 3 * par {
            2
        } else {
            1
        }
    }

    /// The choices that fitted.
    pub fn fitting(&self) -> Vec<Choice> {
        self.steps.iter().filter(|step| step.number.is_some()).map(|step| step.choice).collect()
    }

    /// Number of messages between two servers that were lost at once on their cut link.
    pub fn lost_on(&self, one: ServerId, other: ServerId) -> u64 {
        let [one, other] = [one, other].map(Endpoint::Server);
        let network = &self.table.sim.sim_env.network;
        network.lost_on_cut(one, other) + network.lost_on_cut(other, one)
    }

    fn lost_on_cuts(&self) -> u64 {
        let cluster = self.table.cluster();
        let pairs =
            cluster.iter().flat_map(|one| cluster.iter().filter(move |other| one < *other).map(move |o| (one, o)));
        pairs.map(|(one, other)| self.lost_on(one, other)).sum()
    }

    /// The third hint: the next step of the solution, or where the reader left it. None if there is no solution.
    pub fn next_step(&self) -> Option<String> {
        let (solution, made) = (&self.exercise.solution, self.fitting());
        if solution.is_empty() || self.is_done() {
            return None;
        }
        let same = solution.iter().zip(&made).take_while(|(one, other)| one == other).count();
        if same < made.len() {
            return Some(format!("Go back to step {same}, and then: {}.", solution.get(same)?));
        }
        solution.get(same).map(|next| format!("Next: {next}."))
    }
}
