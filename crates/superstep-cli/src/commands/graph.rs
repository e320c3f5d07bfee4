//! `graph`: the graphs of this program, or those that workers registered.
//!
//! Drawings are Mermaid text, which many tools show. The program's own graphs need no server.

use serde_json::{Value, json};

use crate::{
    app::App,
    args::GraphCommand,
    exit::{Exit, Failure},
    output::{Output, seconds, table},
    reach::Session,
};

/// The graphs of this program.
pub(crate) fn own(app: &App, command: &GraphCommand, output: Output) -> Result<Exit, Failure> {
    match command {
        GraphCommand::List { .. } => {
            let mut rows = table(
                ["graph", "version", "what it does", "nodes"],
                &["what it does", "nodes"],
            );
            let mut values = Vec::new();
            for graph in app.graphs().iter() {
                let nodes: Vec<&str> = graph
                    .topology()
                    .node_names()
                    .map(superstep_graph::NodeName::as_str)
                    .collect();
                rows.add_row([
                    graph.id().name.as_str(),
                    graph.id().version.as_str(),
                    graph.description(),
                    nodes.join(", ").as_str(),
                ]);
                values.push(graph.about());
            }
            output.value(&json!({"graphs": values}))?;
            output.rows(&mut rows, "this program holds no graph")?;
            Ok(Exit::Done)
        }
        GraphCommand::Draw { graph: name, .. } => {
            let graph = app.graphs().by_name(name).ok_or_else(|| {
                let names: Vec<&str> = app
                    .graphs()
                    .iter()
                    .map(|graph| graph.id().name.as_str())
                    .collect();
                Failure::failed(format!("this program holds no graph `{name}`")).with_hint(format!(
                    "it holds {}; --registered looks at what workers hold",
                    names.join(", ")
                ))
            })?;
            draw(output, name, &graph.topology().to_mermaid())
        }
    }
}

/// What workers registered.
pub(crate) async fn registered(session: &Session, command: &GraphCommand) -> Result<Exit, Failure> {
    let output = session.output;
    let graphs = session.connect().await?.client().graphs().await?;
    match command {
        GraphCommand::List { .. } => {
            let mut rows = table(
                [
                    "graph",
                    "version",
                    "worker",
                    "renewed",
                    "threads of others",
                    "topology",
                    "what it does",
                ],
                &["what it does"],
            );
            for graph in &graphs {
                rows.add_row([
                    graph.graph.as_str(),
                    graph.version.as_str(),
                    if graph.live { "live" } else { "none" },
                    seconds(&graph.renewed_at).as_str(),
                    graph.about["versions"].as_str().unwrap_or("pinned"),
                    short(graph.about["topology_hash"].as_str().unwrap_or_default()),
                    graph.about["description"].as_str().unwrap_or_default(),
                ]);
            }
            output.value(&json!({"graphs": graphs}))?;
            output.rows(&mut rows, "no worker has registered a graph")?;
            Ok(Exit::Done)
        }
        GraphCommand::Draw { graph: name, .. } => {
            let found = graphs.iter().rev().find(|graph| graph.graph == **name);
            let mermaid = found.and_then(|graph| graph.about["mermaid"].as_str());
            let mermaid = mermaid.ok_or_else(|| {
                Failure::failed(format!("no worker has registered a graph `{name}`"))
                    .with_hint("superstep graph list --registered shows those there are")
            })?;
            draw(output, name, mermaid)
        }
    }
}

/// Enough of a topology's hash to tell it from another.
fn short(hash: &str) -> &str {
    hash.get(..8).unwrap_or(hash)
}

fn draw(output: Output, name: &str, mermaid: &str) -> Result<Exit, Failure> {
    output.value(&json!({"graph": name, "mermaid": Value::from(mermaid)}))?;
    output.line(mermaid.trim_end())?;
    Ok(Exit::Done)
}
