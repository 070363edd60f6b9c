//! Tests of the table and of the exercises.

use super::exercise::Exercise;
use super::game::Game;

#[test]
fn first_try() {
    let exercise = Exercise::read(include_str!("../../res/exercises/01-chosen.txt")).unwrap();
    let start = std::time::Instant::now();
    let mut game = Game::begin(&exercise, exercise.mode).unwrap();
    println!("begin {:?} first {}", start.elapsed(), game.table.first);
    for choice in exercise.solution.clone() {
        for one in game.table.choices() {
            println!("      {} {} {:?}", one.choice, one.choice.code(), one.off);
        }
        game.choose(choice);
        println!("{:?}", game.steps.last().unwrap());
        println!("goals {:?}", game.goals);
    }
    println!("all {:?}", start.elapsed());
    for (name, text) in game.table.sim.take_lines() {
        println!("{name}\n{text}");
    }
}
