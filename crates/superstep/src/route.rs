//! What a conditional edge may choose: a node, several, packets, or why it cannot say.

use superstep_graph::{NodeName, Target};

use crate::send::Send;

/// The choice of a conditional edge.
///
/// A node's name or [`END`](crate::END), a [`Send`], or a list of either. With a map the names
/// are its keys; a `bool` is the key `true` or `false`. A `Result` fails the task with the text
/// of its error.
pub trait IntoRoute {
    /// The targets, or a text that says why there are none.
    ///
    /// # Errors
    /// What the path says.
    fn into_route(self) -> Result<Vec<Target>, String>;
}

impl IntoRoute for &str {
    fn into_route(self) -> Result<Vec<Target>, String> {
        Ok(vec![Target::Node(self.into())])
    }
}

impl IntoRoute for String {
    fn into_route(self) -> Result<Vec<Target>, String> {
        Ok(vec![Target::Node(self.into())])
    }
}

impl IntoRoute for NodeName {
    fn into_route(self) -> Result<Vec<Target>, String> {
        Ok(vec![Target::Node(self)])
    }
}

impl IntoRoute for bool {
    fn into_route(self) -> Result<Vec<Target>, String> {
        if self { "true" } else { "false" }.into_route()
    }
}

impl IntoRoute for Send {
    fn into_route(self) -> Result<Vec<Target>, String> {
        let packet = self.into_packet().map_err(|error| error.to_string())?;
        Ok(vec![Target::Send(packet)])
    }
}

impl<R: IntoRoute> IntoRoute for Vec<R> {
    fn into_route(self) -> Result<Vec<Target>, String> {
        join(self)
    }
}

impl<R: IntoRoute, const N: usize> IntoRoute for [R; N] {
    fn into_route(self) -> Result<Vec<Target>, String> {
        join(self)
    }
}

impl<R: IntoRoute, E: std::fmt::Display> IntoRoute for Result<R, E> {
    fn into_route(self) -> Result<Vec<Target>, String> {
        self.map_err(|error| error.to_string())?.into_route()
    }
}

fn join<R: IntoRoute>(routes: impl IntoIterator<Item = R>) -> Result<Vec<Target>, String> {
    let mut targets = Vec::new();
    for route in routes {
        targets.extend(route.into_route()?);
    }
    Ok(targets)
}
