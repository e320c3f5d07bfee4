//! `cargo xtask verify`: every check that is not a test.
//!
//! Format, lints, documentation, dependencies, the rules of the repository, generated code. It
//! writes nothing but build output; `cargo xtask fix` is the one that edits.
//!
//! The rule it keeps: a warning is a failure here, and nowhere earlier, so that a half-written
//! change can still be built and tried.

use crate::codegen;
use crate::deny;
use crate::steps::Steps;
use crate::workspace::Workspace;

/// Runs all checks; true when all are clean.
pub(crate) fn run(workspace: &Workspace) -> bool {
    let mut steps = Steps::default();
    steps.command("format", &mut workspace.cargo(&["fmt", "--all", "--check"]));
    steps.step("generated code", || {
        codegen::run(&workspace.root, codegen::Mode::Check)
    });
    steps.command(
        "lints",
        &mut workspace.cargo(&[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
    );
    steps.command(
        "documentation",
        workspace
            .cargo(&["doc", "--quiet", "--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    );
    steps.step("dependencies", || deny::check(workspace));
    // The whole workspace is named so that dependencies get the same features as in `test`, and
    // what is built here is not built again there.
    steps.command(
        "tidy",
        &mut workspace.cargo(&["test", "--quiet", "--workspace", "--test", "tidy"]),
    );
    steps.finish()
}
