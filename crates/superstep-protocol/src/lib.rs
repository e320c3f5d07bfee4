//! What happens to a thread: its records, and three pure functions over them.
//!
//! A thread is a log of records. [`fold`] says what a record means, [`decide`] what an event
//! calls for, [`obligations`] what the thread still owes the world. They await nothing, read no
//! clock and draw no randomness; a worker, the embedded mode and the tests all run these same
//! functions.

mod decide;
mod events;
mod fold;
mod ids;
mod moves;
mod obligations;
mod pause;
mod queue;
mod record;
mod refusal;
mod state;
mod status;
mod streams;
mod terms;
mod trace;

pub use decide::{
    Answers, AskMove, Cancel, Closing, Event, Migrated, Nothing, RECURSION_LIMIT, Resume, Start,
    StateUpdate, Stop, Superstep, Updated, Verdict, close_with, decide, rolls_back,
};
pub use events::{EventData, ThreadEvent, event_id, events};
pub use fold::{FoldError, fold};
pub use ids::{
    CommandId, Dispatch, GraphId, GraphName, GraphVersion, Head, Nonce, ParseHeadError, RunId,
    ThreadId, UnixMillis,
};
pub use moves::{Move, Stays};
pub use obligations::{Obligation, obligations};
pub use pause::{Pause, Paused, Timer, sleep_name, timers};
pub use queue::{
    BEGUN_RUNS_MAX, Displaced, HIDDEN_SPANS_MAX, ParseStrategyError, QUEUED_RUNS_MAX, QueuedRun,
    Restored, Strategy,
};
pub use record::{
    Amended, AskedCommand, Base, CommandRef, Committed, Durability, Goto, Parked, Profile, Raised,
    Record, RecordBody, RunError, TASK_POISONED, TaskResult, Terms, Then, Trace, TracedWrite,
    Update,
};
pub use refusal::Refusal;
pub use state::{
    Answer, Asked, CLOSED_QUESTIONS_MAX, Closed, Decision, NEVER_OPENED, Progress, Question, Run,
    TaskState, ThreadState, checkpoint_id, is_internal, value_digest, version_of_checkpoint,
};
pub use status::{ParseThreadStatusError, RunStatus, ThreadStatus};
pub use streams::{StreamMode, Streams};
pub use trace::{Origin, Segment};
