//! Which crate may depend on which: the layers, read from cargo's own data.
//!
//! A crate is a dependency rule. The table below says what each of ours may use of ours; vendors'
//! clients are fenced into the one adapter that wraps them; the pure crates use nothing that could
//! bring a clock, chance or a client. Transitive use of the clients is left to `deny.toml`.
//!
//! The rule it keeps: what the table does not name is forbidden, so a new crate or a new arrow is
//! argued here, in the same commit.

use std::sync::OnceLock;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use superstep_tests::workspace_root;

use crate::repository::{Finding, expect_none};

/// The pure crates, each with the crates of others that it may use.
pub(crate) const PURE: [(&str, &[&str]); 2] = [
    (
        "superstep-graph",
        &[
            "indexmap",
            "serde",
            "serde_json",
            "thiserror",
            "xxhash-rust",
        ],
    ),
    (
        "superstep-protocol",
        &[
            "indexmap",
            "serde",
            "serde_json",
            "thiserror",
            "xxhash-rust",
        ],
    ),
];

/// What the tests and benchmarks of a pure crate may use beside that.
const PURE_TESTS: &[&str] = &["criterion", "insta", "proptest"];

/// Vendors' clients, each with the only crate that may use it; the tests speak to servers bare.
const FENCED: [(&str, &str); 3] = [
    ("async-nats", "superstep-queue-nats"),
    ("redis", "superstep-checkpoint-redis"),
    ("rusqlite", "superstep-checkpoint-sqlite"),
];

/// What each crate may use of ours. Ports know the pure crates, adapters their port, shells the
/// ports, and only the composition roots `superstep` and `superstep-cli` know the adapters. On a
/// shell only they and the simulator are built.
const LAYERS: &[(&str, &[&str])] = &[
    ("superstep-graph", &[]),
    ("superstep-macros", &[]),
    ("xtask", &[]),
    ("superstep-protocol", &["superstep-graph"]),
    ("superstep-wire", &["superstep-graph", "superstep-protocol"]),
    (
        "superstep-checkpoint",
        &["superstep-graph", "superstep-protocol"],
    ),
    (
        "superstep-queue",
        &["superstep-graph", "superstep-protocol"],
    ),
    (
        "superstep-checkpoint-sqlite",
        &[
            "superstep-checkpoint",
            "superstep-graph",
            "superstep-protocol",
            "superstep-queue",
            "superstep-wire",
        ],
    ),
    (
        "superstep-checkpoint-redis",
        &[
            "superstep-checkpoint",
            "superstep-graph",
            "superstep-protocol",
            "superstep-wire",
        ],
    ),
    (
        "superstep-queue-nats",
        &[
            "superstep-graph",
            "superstep-protocol",
            "superstep-queue",
            "superstep-wire",
        ],
    ),
    (
        "superstep-worker",
        &[
            "superstep-checkpoint",
            "superstep-graph",
            "superstep-protocol",
            "superstep-queue",
            "superstep-wire",
        ],
    ),
    // The simulator runs the shell itself, over the ports' memory alone.
    (
        "superstep-sim",
        &[
            "superstep-checkpoint",
            "superstep-graph",
            "superstep-protocol",
            "superstep-queue",
            "superstep-wire",
            "superstep-worker",
        ],
    ),
    (
        "superstep",
        &[
            "superstep-checkpoint",
            "superstep-checkpoint-redis",
            "superstep-checkpoint-sqlite",
            "superstep-graph",
            "superstep-macros",
            "superstep-protocol",
            "superstep-queue",
            "superstep-queue-nats",
            "superstep-wire",
            "superstep-worker",
        ],
    ),
    ("superstep-guide", &["superstep"]),
    (
        "superstep-cli",
        &[
            "superstep",
            "superstep-checkpoint",
            "superstep-checkpoint-redis",
            "superstep-checkpoint-sqlite",
            "superstep-graph",
            "superstep-guide",
            "superstep-protocol",
            "superstep-queue",
            "superstep-queue-nats",
            "superstep-wire",
            "superstep-worker",
        ],
    ),
];

/// The crate of tests: it may use everything, and every crate's tests may use it.
const TESTS: &str = "superstep-tests";

/// One line under `[dependencies]`, `[dev-dependencies]` or `[build-dependencies]`.
struct Arrow {
    from: String,
    to: String,
    for_tests: bool,
}

/// What cargo says about the members of this workspace.
pub(crate) fn metadata() -> &'static Metadata {
    static METADATA: OnceLock<Metadata> = OnceLock::new();
    METADATA.get_or_init(|| {
        MetadataCommand::new()
            .manifest_path(workspace_root().join("Cargo.toml"))
            .no_deps()
            .exec()
            .expect("cargo can read the workspace")
    })
}

fn findings(arrows: &[Arrow]) -> Vec<Finding> {
    arrows
        .iter()
        .filter_map(|arrow| {
            let manifest = if arrow.from == TESTS {
                "tests/Cargo.toml".to_owned()
            } else {
                format!("crates/{}/Cargo.toml", arrow.from)
            };
            objection(arrow).map(|message| Finding::new(&manifest, 0, message))
        })
        .collect()
}

fn objection(
    Arrow {
        from,
        to,
        for_tests,
    }: &Arrow,
) -> Option<String> {
    if from == TESTS || (to == TESTS && *for_tests) {
        return None;
    }
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| name == from) else {
        return Some(format!(
            "{from} has no line in the table of layers in tests/tidy/arrows.rs"
        ));
    };
    if to.starts_with("superstep") {
        return (!allowed.contains(&to.as_str()))
            .then(|| format!("{from} must not know {to}: the layers forbid this arrow"));
    }
    if let Some((_, keeper)) = FENCED.iter().find(|(client, _)| client == to)
        && keeper != from
    {
        return Some(format!(
            "{from} must not use {to}: only {keeper} does, behind a port"
        ));
    }
    let (_, pure) = PURE.iter().find(|(name, _)| name == from)?;
    let known = pure.contains(&to.as_str()) || (*for_tests && PURE_TESTS.contains(&to.as_str()));
    (!known).then(|| {
        format!(
            "{from} is pure and must not use {to}; if {to} brings no clock, chance or client, \
             name it in tests/tidy/arrows.rs"
        )
    })
}

#[test]
fn no_crate_depends_on_what_it_must_not_know() {
    let arrows: Vec<Arrow> = metadata()
        .packages
        .iter()
        .flat_map(|package| package.dependencies.iter().map(move |to| (package, to)))
        .map(|(package, to)| Arrow {
            from: package.name.to_string(),
            to: to.name.clone(),
            for_tests: to.kind == DependencyKind::Development,
        })
        .collect();
    assert!(
        arrows.len() > 20,
        "cargo named only {} dependencies",
        arrows.len()
    );
    expect_none(&findings(&arrows));
}

#[test]
fn every_layer_is_a_crate_below_its_users() {
    for (place, (name, allowed)) in LAYERS.iter().enumerate() {
        for used in *allowed {
            let below = LAYERS[..place].iter().any(|(lower, _)| lower == used);
            assert!(
                below,
                "{name} may use {used}, which is not above it in the table"
            );
        }
    }
}

#[test]
fn a_forbidden_arrow_is_found() {
    #[track_caller]
    fn check(from: &str, to: &str, for_tests: bool, found: usize) {
        let arrow = Arrow {
            from: from.to_owned(),
            to: to.to_owned(),
            for_tests,
        };
        assert_eq!(findings(&[arrow]).len(), found, "{from} -> {to}");
    }
    check("superstep-protocol", "superstep-graph", false, 0);
    check("superstep-graph", "superstep-protocol", false, 1);
    check("superstep-graph", "superstep-protocol", true, 1);
    check("superstep-graph", "tokio", false, 1);
    check("superstep-protocol", "rand", false, 1);
    check("superstep-protocol", "uuid", true, 1);
    check("superstep-graph", "proptest", true, 0);
    check("superstep-graph", "proptest", false, 1);
    check("superstep-worker", "superstep-queue", false, 0);
    check("superstep-worker", "superstep-queue-nats", false, 1);
    check("superstep-worker", "superstep-checkpoint-redis", true, 1);
    check("superstep-worker", "async-nats", false, 1);
    check("superstep-queue-nats", "async-nats", false, 0);
    check("superstep-queue-nats", "redis", false, 1);
    check("superstep-cli", "redis", false, 1);
    check("superstep-cli", "superstep-checkpoint-redis", false, 0);
    check("superstep-checkpoint-sqlite", "rusqlite", false, 0);
    check("superstep-guide", "superstep-worker", false, 1);
    check("superstep-tests", "async-nats", false, 0);
    check("superstep-tests", "superstep-cli", false, 0);
    check("superstep-queue-nats", "superstep-tests", true, 0);
    check("superstep-queue-nats", "superstep-tests", false, 1);
    check("superstep-sim", "superstep-worker", false, 0);
    check("superstep-sim", "superstep-checkpoint-redis", false, 1);
    check("superstep-worker", "superstep-sim", true, 1);
    check("superstep-helpers", "serde", false, 1);
}
