//! How long a node may take: policies of a graph's nodes that are about time.
//!
//! Plain settings, as the retry policy beside them. A node that is over its time has failed, and
//! may be tried again like any other that has.
//!
//! What they mean for an attempt is the worker's business; nothing of them is stored.

use std::time::Duration;

use superstep_graph::NodeName;

use super::GraphBuilder;

impl<S> GraphBuilder<S> {
    /// How long one attempt of a node may take; otherwise as long as the worker's settings say.
    pub fn timeout(mut self, node: impl Into<NodeName>, timeout: Duration) -> Self {
        self.policies.entry(node.into()).or_default().timeout = Some(timeout);
        self
    }

    /// How long an attempt of a node may be silent: a node that neither calls
    /// [`heartbeat`](crate::Context::heartbeat) nor emits anything for longer is taken for hung.
    ///
    /// ```
    /// use std::time::Duration;
    /// use superstep::{Context, Embedded, Graph, NodeError, START, State};
    ///
    /// #[derive(Clone, Default, State)]
    /// struct Copied {
    ///     pages: u64,
    /// }
    ///
    /// async fn copy(_: Copied, ctx: Context) -> Result<CopiedUpdate, NodeError> {
    ///     for _ in 0..3 {
    ///         tokio::time::sleep(Duration::from_millis(1)).await;
    ///         ctx.heartbeat();
    ///     }
    ///     Ok(Copied::update().pages(3u64))
    /// }
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let graph = Graph::<Copied>::builder("copy")
    ///     .node("copy", copy)
    ///     .timeout("copy", Duration::from_secs(3600))
    ///     .idle_timeout("copy", Duration::from_secs(60))
    ///     .edge(START, "copy")
    ///     .build()?;
    /// let app = Embedded::memory().graph(graph).build().await?;
    /// let done = app.thread("1").invoke(Copied::update()).await?;
    /// assert_eq!(done.state::<Copied>()?.pages, 3);
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    pub fn idle_timeout(mut self, node: impl Into<NodeName>, timeout: Duration) -> Self {
        self.policies.entry(node.into()).or_default().idle_timeout = Some(timeout);
        self
    }
}
