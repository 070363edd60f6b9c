//! Play at the terminal: the same list of choices, for readers without a browser.

use std::io::{self, BufRead, Write};

use super::choice::{Choice, read_line};
use super::exercise::{Exercise, Mode};
use super::game::Game;
use super::view::{View, show};

const HELP: &str = "\
Enter the number of a choice, a choice such as 'deliver s1>s3 ACCEPT', or a command:
  drop N, double N    lose message N, or have it arrive twice
  all                 list crashes, links and housekeeping too
  votes               which values can yet be chosen
  state               what each server knows
  undo [N]            take back N steps
  hint                the next hint
  save                the choices, one a line
  quit                end
";

/// Plays an exercise: reads commands from `input` until its end, and writes to `out`. Returns whether all goals are met.
pub fn play(exercise: &Exercise, mode: Mode, input: impl BufRead, out: &mut impl Write) -> Result<bool, String> {
    let mut session = Session { exercise, mode, choices: Vec::new(), hints: 0, shows_all: false };
    session.run(input, out)
}

struct Session<'a> {
    exercise: &'a Exercise,
    mode: Mode,
    choices: Vec<Choice>,
    hints: usize,
    shows_all: bool,
}

impl Session<'_> {
    fn run(&mut self, input: impl BufRead, out: &mut impl Write) -> Result<bool, String> {
        let failed = |error: io::Error| format!("cannot write: {error}");
        writeln!(out, "{}\n\n{}\n\n{HELP}", self.exercise.title, self.exercise.text).map_err(failed)?;
        let mut view = self.show_state(out)?;
        for line in input.lines() {
            let line = line.map_err(|error| format!("cannot read: {error}"))?;
            let line = line.trim();
            if line == "quit" {
                break;
            }
            let text = self.command(line, &view)?;
            match text {
                Some(text) => writeln!(out, "{text}").map_err(failed)?,
                None => view = self.show_state(out)?,
            }
            write!(out, "> ").and_then(|()| out.flush()).map_err(failed)?;
        }
        Ok(view.is_done())
    }

    /// Carries out a command. A text is printed; without one the choices have changed.
    fn command(&mut self, line: &str, view: &View) -> Result<Option<String>, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let listed = |number: &str| -> Option<Choice> {
            let at = number.parse::<usize>().ok()?.checked_sub(1)?;
            view.listed(self.shows_all).get(at).and_then(|choice| Choice::of_code(&choice.code))
        };
        match words.as_slice() {
            [] => Ok(Some(String::new())),
            ["help"] => Ok(Some(HELP.to_string())),
            ["all"] => {
                self.shows_all = !self.shows_all;
                Ok(None)
            }
            ["votes"] => Ok(Some(view.votes_text())),
            ["state"] => Ok(Some(view.servers_text())),
            ["save"] => Ok(Some(self.choices.iter().map(|choice| format!("{choice}\n")).collect())),
            ["hint"] => {
                self.hints += 1;
                let given = self.exercise.hints.get(self.hints - 1).cloned();
                Ok(Some(given.or_else(|| view.hint.clone()).unwrap_or("There is no further hint.".to_string())))
            }
            ["undo"] => {
                self.choices.pop();
                Ok(None)
            }
            ["undo", count] => {
                let count: usize = count.parse().unwrap_or(0);
                self.choices.truncate(self.choices.len().saturating_sub(count));
                Ok(None)
            }
            [kind @ ("drop" | "double"), number] if listed(number).is_some() => {
                let Some(Choice::Deliver(name)) = listed(number) else {
                    return Ok(Some("Only messages can be dropped or doubled.".to_string()));
                };
                self.try_all(vec![if *kind == "drop" { Choice::Drop(name) } else { Choice::Double(name) }])
            }
            [number] if listed(number).is_some() => self.try_all(listed(number).into_iter().collect()),
            [code] if Choice::of_code(code).is_some() => self.try_all(Choice::of_code(code).into_iter().collect()),
            _ => match read_line(line) {
                Ok(choices) => self.try_all(choices),
                Err(why) => Ok(Some(format!("{why}. Enter help for the commands."))),
            },
        }
    }

    /// Makes choices; one that does not fit is not made.
    fn try_all(&mut self, choices: Vec<Choice>) -> Result<Option<String>, String> {
        let longer: Vec<Choice> = self.choices.iter().copied().chain(choices).collect();
        if longer.len() > super::choice::CHOICES_MAX {
            return Ok(Some(super::choice::too_many()));
        }
        let game = Game::play(self.exercise, self.mode, &longer)?;
        let refused = game.steps[self.choices.len()..].iter().find_map(|step| step.skipped.clone());
        match refused {
            Some(why) => Ok(Some(format!("Not possible: {why}."))),
            None => {
                self.choices = longer;
                Ok(None)
            }
        }
    }

    fn show_state(&self, out: &mut impl Write) -> Result<View, String> {
        let game = Game::play(self.exercise, self.mode, &self.choices)?;
        let view = show(game, 0, self.hints > self.exercise.hints.len())?;
        out.write_all(view.text(self.shows_all).as_bytes()).map_err(|error| format!("cannot write: {error}"))?;
        Ok(view)
    }
}

/// Plays a solution or other choices, and says for each step what it did.
pub fn narrate(exercise: &Exercise, mode: Mode, choices: &[Choice]) -> Result<String, String> {
    let view = show(Game::play(exercise, mode, choices)?, 0, false)?;
    Ok(format!("{}\n\n{}\n\n{}{}", exercise.title, exercise.text, view.steps_text(), view.result_text()))
}
