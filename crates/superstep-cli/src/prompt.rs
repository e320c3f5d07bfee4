//! Asking the person at the terminal for an answer.
//!
//! Shows the choices of an example where there is one, and takes any JSON besides. It reads
//! lines; which question is asked, and what becomes of the answer, is left to the command.

use std::io::{self, BufRead as _};

use serde_json::{Map, Value};

use crate::{
    example::{Answer, Choice},
    exit::{Exit, Failure},
    output::{ASKS, DIM, Output, prompt as write_prompt},
};

/// Asks until there is an answer. Ends the command if the input ends.
pub(crate) fn ask(output: Output, question: &Value, choices: &[Choice]) -> Result<Value, Failure> {
    let mut offered: Vec<String> = choices
        .iter()
        .map(|choice| format!("[{}] {}", choice.key, choice.label))
        .collect();
    offered.push("or an answer as JSON".to_owned());
    let offered = offered.join(", ");
    loop {
        write_prompt(&format!("{ASKS}?{ASKS:#} {offered}: "))?;
        let line = read_line()?;
        let typed = line.trim();
        if let Some(choice) = choices
            .iter()
            .find(|choice| is_key(typed, choice) || typed.eq_ignore_ascii_case(&choice.label))
        {
            return match &choice.answer {
                Answer::Value(value) => Ok(value.clone()),
                Answer::Text { field, from } => text(output, question, field, from),
            };
        }
        match serde_json::from_str(typed) {
            Ok(answer) => return Ok(answer),
            Err(error) if !typed.is_empty() => {
                output.line(format!("  that is neither a choice nor JSON: {error}"))?;
            }
            Err(_) => {}
        }
    }
}

/// Asks for a text in one line; nothing typed keeps the one that is there.
fn text(output: Output, question: &Value, field: &str, from: &str) -> Result<Value, Failure> {
    output.line(format!(
        "  {DIM}one line, \\n for a new line; Enter alone keeps it as it is{DIM:#}"
    ))?;
    write_prompt(&format!("  {field}: "))?;
    let line = read_line()?;
    let text = match line.trim() {
        "" => question.get(from).cloned().unwrap_or(Value::Null),
        typed => Value::String(typed.replace("\\n", "\n")),
    };
    Ok(Value::Object(Map::from_iter([(field.to_owned(), text)])))
}

fn is_key(typed: &str, choice: &Choice) -> bool {
    let mut chars = typed.chars();
    matches!((chars.next(), chars.next()), (Some(key), None) if key.eq_ignore_ascii_case(&choice.key))
}

fn read_line() -> Result<String, Failure> {
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    match read {
        Ok(0) => Err(Failure::new(
            Exit::Stopped,
            "the input ended before the question was answered",
        )),
        Ok(_) => Ok(line),
        Err(error) => Err(Failure::failed(format!("cannot read an answer: {error}"))),
    }
}
