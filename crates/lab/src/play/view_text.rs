//! A view as text, for the terminal.

use std::fmt::Write as _;

use super::view::{ChoiceView, View};

impl View {
    /// The choices that a list shows, in its order.
    pub fn listed(&self, shows_all: bool) -> Vec<&ChoiceView> {
        let is_shown = |choice: &&ChoiceView| match choice.group {
            "messages" | "timers" | "clients" => true,
            _ => shows_all,
        };
        self.enabled.iter().filter(|choice| choice.off.is_none()).filter(is_shown).collect()
    }

    /// Whether all goals are met.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The last step, the goals, and what can be done next.
    pub fn text(&self, shows_all: bool) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        if let Some(last) = self.steps.last() {
            let _ = writeln!(text, "\n{}", step_text(last));
        }
        text += &self.result_text();
        let _ = writeln!(text, "\n[{}]", self.mode_sentence());
        for (at, choice) in self.listed(shows_all).into_iter().enumerate() {
            let _ = writeln!(text, "{:>4}  {}", at + 1, choice_text(choice));
        }
        text
    }

    /// All steps.
    pub fn steps_text(&self) -> String {
        self.steps.iter().map(|step| format!("{}\n", step_text(step))).collect()
    }

    /// Goals, stars, and what is broken.
    pub fn result_text(&self) -> String {
        let mut text = String::new();
        for (sentence, met) in self.goal_lines() {
            let mark = if met.is_some() { "x" } else { " " };
            let _ = writeln!(text, "  [{mark}] {sentence}");
        }
        for (sentence, step) in self.never_lines() {
            let _ = writeln!(text, "  NEVER: {sentence} (step {step})");
        }
        if let Some(broken) = &self.broken {
            let _ = writeln!(text, "  BROKEN: {}", broken.sentence);
        }
        let _ = writeln!(text, "  {}", self.stars_sentence());
        text
    }

    /// The vote table.
    pub fn votes_text(&self) -> String {
        self.votes.iter().map(|slot| format!("{}\n", slot.text())).collect()
    }
}

fn choice_text(choice: &ChoiceView) -> String {
    let place = match (&choice.from, &choice.to, choice.server, choice.role) {
        (Some(from), Some(to), ..) => format!("{from}>{to}"),
        (_, _, Some(server), Some(role)) => format!("s{server}.{role}"),
        (_, _, Some(server), None) => format!("s{server}"),
        (Some(from), ..) => from.clone(),
        _ => String::new(),
    };
    format!("{place:<14} {}", choice.label)
}

fn step_text(step: &super::view::StepView) -> String {
    step.text_lines().join("\n     ")
}
