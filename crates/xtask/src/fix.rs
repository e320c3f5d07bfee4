//! `cargo xtask fix`: what a machine can put right, in one command.
//!
//! Generated code first, as the other two read it; then what the lints know how to change; then
//! the format. What needs thought is left to whoever reads `cargo xtask verify`.
//!
//! The rule it keeps: it is the only command here that edits files under version control.

use crate::codegen;
use crate::steps::Steps;
use crate::workspace::Workspace;

/// Edits; true when every step could do its work.
pub(crate) fn run(workspace: &Workspace) -> bool {
    let mut steps = Steps::default();
    steps.step("generated code", || {
        codegen::run(&workspace.root, codegen::Mode::Write)
    });
    steps.command(
        "lints",
        &mut workspace.cargo(&[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--fix",
            "--allow-dirty",
            "--allow-staged",
        ]),
    );
    steps.command("format", &mut workspace.cargo(&["fmt", "--all"]));
    steps.finish()
}
