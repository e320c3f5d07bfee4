//! The `superstep` binary: the command line with the guide's graphs.
//!
//! It is what a platform team writes for graphs of its own, and examples for `demo` besides.

mod guide;

use std::process::ExitCode;

use superstep_cli::App;

fn main() -> ExitCode {
    let demo = guide::Demo::new();
    let app = App::new(superstep_guide::graphs()).with_demo_graphs(demo.graphs());
    demo.examples()
        .into_iter()
        .fold(app, App::with_example)
        .main()
}
