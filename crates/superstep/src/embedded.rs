//! Embedded: graphs that run in this process, with their threads in memory or in a data folder.
//!
//! The same engine and rules as a worker's, without a queue. A composition root: it picks the
//! store and leaves everything else to the worker's `Local`.

use std::{path::PathBuf, sync::Arc};

use superstep_checkpoint::{MemoryLog, ThreadLog};
use superstep_checkpoint_sqlite::{DataDir, Role, SqliteLog};
use superstep_protocol::ThreadId;
use superstep_worker::{
    Error as ThreadError, Graphs, Local, OutputSink, RunOptions, RunnableGraph, SystemWorld,
    WorkerSettings,
};

use crate::{error::Error, run::RunOutput, state::IntoInput, thread::Thread};

/// Graphs that run in this process.
///
/// In memory, for tests and for what need not outlive the process:
///
/// ```
/// # use superstep::{Graph, NodeError, START, State};
/// # #[derive(Clone, Default, State)]
/// # struct Note { text: String }
/// # async fn node(_: Note) -> Result<(), NodeError> { Ok(()) }
/// # fn graph() -> Graph<Note> { Graph::builder("note").node("n", node).edge(START, "n").build().unwrap() }
/// # async fn run() -> Result<(), superstep::Error> {
/// use superstep::Embedded;
///
/// let app = Embedded::memory().graph(graph()).build().await?;
/// let run = app.thread("1").invoke(Note::update().text("hello")).await?;
/// assert_eq!(run.state::<Note>()?.text, "hello");
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
///
/// In a data folder, where threads outlive the process. The folder is made if it is not there,
/// and locked against a second process as long as the app or one of its threads is held:
///
/// ```
/// # use superstep::{Graph, NodeError, START, State};
/// # #[derive(Clone, Default, State)]
/// # struct Note { text: String }
/// # async fn node(_: Note) -> Result<(), NodeError> { Ok(()) }
/// # fn graph() -> Graph<Note> { Graph::builder("note").node("n", node).edge(START, "n").build().unwrap() }
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let parent = tempfile::tempdir()?;
/// # let folder = parent.path().join("data");
/// use superstep::Embedded;
///
/// let app = Embedded::sqlite(&folder).graph(graph()).build().await?;
/// let _ = app.thread("1").invoke(Note::update().text("kept")).await?;
/// drop(app);
///
/// let app = Embedded::sqlite(&folder).graph(graph()).build().await?;
/// let state = app.thread("1").state().await?.expect("the thread is there");
/// assert_eq!(state.values["text"], "kept");
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    local: Local,
    _folder: Option<DataDir>,
}

impl Embedded {
    /// Threads in memory: gone with the process.
    pub fn memory() -> EmbeddedBuilder {
        EmbeddedBuilder::over(Store::Memory)
    }

    /// Threads in a data folder, in one SQLite file.
    pub fn sqlite(folder: impl Into<PathBuf>) -> EmbeddedBuilder {
        EmbeddedBuilder::over(Store::Sqlite(folder.into()))
    }

    /// The thread of this name, whether it is there yet or not.
    pub fn thread(&self, id: impl Into<ThreadId>) -> Thread {
        Thread::new(self.clone(), id.into())
    }

    /// Runs the graph on `input` and keeps nothing: no thread, so nothing to resume, look at or
    /// update afterwards. What LangGraph does for a graph without a checkpointer.
    ///
    /// ```
    /// # use superstep::{Embedded, Graph, NodeError, START, State};
    /// # #[derive(Clone, Default, State)]
    /// # struct Note { text: String }
    /// # async fn node(_: Note) -> Result<(), NodeError> { Ok(()) }
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let graph = Graph::<Note>::builder("note").node("n", node).edge(START, "n").build()?;
    /// let app = Embedded::memory().graph(graph).build().await?;
    /// let run = app.run_once(Note::update().text("hello"), Default::default()).await?;
    /// assert_eq!(run.state::<Note>()?.text, "hello");
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`Thread::invoke`]; also if the app has several graphs.
    pub async fn run_once(
        &self,
        input: impl IntoInput,
        options: RunOptions,
    ) -> Result<RunOutput, Error> {
        let thread = self.thread(self.local().new_thread());
        let ran = thread.invoke_with(input, options).await;
        // A thread that refused its input is not there.
        match thread.delete().await {
            Err(error) if error.refusal().is_none() => Err(error),
            _ => ran,
        }
    }

    /// Takes up threads whose time has come: those that sleep, are to be tried again, or were asked
    /// something until a deadline, while no call waits for them; also what another process left so.
    /// It never returns: spawn it, and drop it to stop.
    ///
    /// A call that starts or resumes a thread waits for it anyway while it sleeps, unless somebody
    /// is asked meanwhile.
    pub async fn keep_time(&self) {
        self.local().keep_time().await;
    }

    /// The graphs that it runs.
    pub fn graphs(&self) -> &Graphs {
        self.local().graphs()
    }

    /// What runs them.
    pub fn local(&self) -> &Local {
        &self.shared.local
    }
}

#[derive(Debug)]
enum Store {
    Memory,
    Sqlite(PathBuf),
}

/// Collects graphs and settings, then opens the store.
#[must_use = "an app is made by `build`"]
pub struct EmbeddedBuilder {
    store: Store,
    graphs: Graphs,
    settings: WorkerSettings,
    sink: Option<Arc<dyn OutputSink>>,
}

impl std::fmt::Debug for EmbeddedBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedBuilder")
            .field("store", &self.store)
            .field("graphs", &self.graphs)
            .finish_non_exhaustive()
    }
}

impl EmbeddedBuilder {
    fn over(store: Store) -> Self {
        Self {
            store,
            graphs: Graphs::new(),
            settings: WorkerSettings::default(),
            sink: None,
        }
    }

    /// Adds a graph; one of the same name and version is replaced.
    pub fn graph(mut self, graph: impl Into<RunnableGraph>) -> Self {
        self.graphs.add(graph.into());
        self
    }

    /// Adds graphs.
    pub fn graphs(self, graphs: impl IntoIterator<Item = RunnableGraph>) -> Self {
        graphs.into_iter().fold(self, Self::graph)
    }

    /// Other settings than the defaults.
    pub fn settings(mut self, settings: WorkerSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Sends what runs tell to `sink`: what nodes `emit`, and whatever else a run asks for.
    pub fn output(mut self, sink: impl OutputSink + 'static) -> Self {
        self.sink = Some(Arc::new(sink));
        self
    }

    /// Opens the store.
    ///
    /// # Errors
    /// If the data folder is locked by another process or cannot be used, or its store cannot
    /// be opened.
    pub async fn build(self) -> Result<Embedded, Error> {
        let (log, folder) = open(self.store).await?;
        let local = Local::new(self.graphs, log, Arc::new(SystemWorld), self.settings);
        Ok(Embedded {
            shared: Arc::new(Shared {
                local: match self.sink {
                    Some(sink) => local.with_output(sink),
                    None => local,
                },
                _folder: folder,
            }),
        })
    }
}

async fn open(store: Store) -> Result<(Arc<dyn ThreadLog>, Option<DataDir>), Error> {
    let path = match store {
        Store::Memory => return Ok((Arc::new(MemoryLog::default()), None)),
        Store::Sqlite(path) => path,
    };
    // Opening a file may wait for the disk, and for a writer that is going away.
    let opened = tokio::task::spawn_blocking(move || {
        let folder = DataDir::open(path, Role::Worker)?;
        let log = SqliteLog::open(folder.file()).map_err(ThreadError::Store)?;
        Ok((log, folder))
    });
    let opened: Result<_, Error> = opened.await.expect("opening a store does not panic");
    let (log, folder) = opened?;
    Ok((Arc::new(log), Some(folder)))
}
