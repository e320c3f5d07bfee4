//! Help: every subcommand has one, with examples.

use crate::run::Shell;

/// The subcommands that `help` lists.
fn listed(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.trim().is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// Checks the help of `command` and of what is below it; gives how many there were.
fn check(shell: &Shell, command: &[String]) -> usize {
    let args: Vec<&str> = command
        .iter()
        .map(String::as_str)
        .chain(["--help"])
        .collect();
    let help = shell.run(&args).code(0).stdout;
    assert!(help.contains("Examples:"), "{command:?}: {help}");
    let name = command.last().map_or("demo", String::as_str);
    let example = |line: &str| line.trim().contains("superstep ") && line.contains(name);
    assert!(help.lines().any(example), "{command:?}: {help}");
    let below = listed(&help);
    let deeper: usize = below
        .into_iter()
        .map(|name| check(shell, &[command, &[name]].concat()))
        .sum();
    1 + deeper
}

#[test]
fn every_subcommand_has_an_example() {
    assert_eq!(check(&Shell::new(), &[]), 27);
}

#[test]
fn help_and_version_go_to_standard_output() {
    let shell = Shell::new();
    let ran = shell.run(&["--version"]).code(0);
    assert!(ran.stdout.starts_with("superstep "), "{ran:?}");
    let ran = shell.run(&["--help"]).code(0);
    assert!(ran.stdout.contains("Exit codes:"), "{ran:?}");
    assert_eq!(ran.stderr, "");
}

#[test]
fn a_wrong_argument_is_usage() {
    let shell = Shell::new();
    shell.run(&["strat"]).code(2).says(&["start"]);
    shell.run(&["start"]).code(2).says(&["<GRAPH>"]);
    shell
        .run(&["start", "basic", "--timeout", "30"])
        .code(2)
        .says(&["--timeout", "30s"]);
    shell
        .run(&["threads", "list", "--limit", "0"])
        .code(2)
        .says(&["--limit"]);
}
