//! The state of a graph as a type: its channels, how it is read from them, and its update.
//!
//! `#[derive(State)]` writes the implementation; `Value` implements it for dynamic graphs, whose
//! channels are declared one by one. What channels do with writes is left to the engine.

use serde_json::{Map, Value};
use superstep_graph::{ChannelKind, ChannelName};

use crate::output::{IntoOutput, IntoUpdate};

/// The state of a graph: one channel a field.
///
/// Derive it for a struct whose fields are types of serde, with a `Default` and a JSON Schema
/// (derive `schemars::JsonSchema` for your own; the crate is exported as `superstep::schemars`).
/// A channel that nothing wrote yet reads as the field's `Default`. Beside the implementation the
/// derive makes `<Name>Update`, a builder with a setter for each field, which sets only what it
/// is told to.
///
/// | attribute | the channel |
/// |---|---|
/// | none, `#[state(channel = last)]` | keeps the last value; two writes in one superstep fail the run |
/// | `#[state(reducer = append)]` | joins lists; `union`, `by_id` and `messages` are lists too |
/// | `#[state(reducer = add)]` | adds numbers; also `max`; `concat` joins texts, `merge` objects |
/// | `#[state(reducer = path::to::function)]` | folds by a pure `fn(T, T) -> T` of the value so far and the write |
/// | `#[state(channel = any)]` | keeps the last of several writes, empty after a superstep without one |
/// | `#[state(channel = topic)]` | the writes of the last superstep as a list; `topic_acc` keeps them all |
/// | `#[state(channel = ephemeral)]` | holds its value for one superstep |
/// | `#[state(channel = untracked)]` | is in no checkpoint: absent after an interrupt |
/// | `#[state(channel = remaining_steps)]` | supersteps left, from the engine; also `is_last_step` |
/// | `#[state(rename = "..")]` | another name than the field's; serde's `rename` does too |
/// | `#[state(required)]` | an input must name it, and a state without it cannot be read |
///
/// ```
/// use superstep::State;
///
/// fn longest(left: String, right: String) -> String {
///     if right.len() > left.len() { right } else { left }
/// }
///
/// #[derive(Clone, Debug, Default, State)]
/// struct Search {
///     query: String,
///     #[state(reducer = append)]
///     hits: Vec<String>,
///     #[state(reducer = add)]
///     cost: u64,
///     #[state(reducer = longest)]
///     best: String,
///     answer: Option<String>,
/// }
///
/// let update = Search::update().push_hits("a").hits(["b", "c"]).cost(3);
/// let update = update.answer("a").clear_answer().overwrite_best("anew");
/// # let _ = update;
/// ```
///
/// What is not a channel cannot be named:
///
/// ```compile_fail
/// # use superstep::State;
/// #[derive(Default, State)]
/// struct Search { query: String }
/// Search::update().qurey("spelled wrong");
/// ```
///
/// Nor can a value of another type be set, or an attribute be misspelled:
///
/// ```compile_fail
/// # use superstep::State;
/// #[derive(Default, State)]
/// struct Search { query: String }
/// Search::update().query(7);
/// ```
///
/// ```compile_fail
/// # use superstep::State;
/// #[derive(Default, State)]
/// struct Search { #[state(reduce = add)] cost: u64 }
/// ```
pub trait State: Sized + Send + 'static {
    /// What a node returns to change some of it.
    type Update: IntoUpdate<Self> + IntoOutput<Self> + Default;

    /// The channels, in the order of the fields.
    fn channels() -> Vec<(ChannelName, ChannelKind)>;

    /// Reads a state from the values of its channels; what is absent gets its default.
    ///
    /// # Errors
    /// If a value does not have the form of its field.
    fn from_channels(values: Map<String, Value>) -> Result<Self, StateError>;

    /// Reads a state from what a node is given: an object of channels.
    ///
    /// # Errors
    /// As [`from_channels`](Self::from_channels), and if it is no object, as the packet of a
    /// send may be.
    fn from_input(input: Value) -> Result<Self, StateError> {
        match input {
            Value::Object(values) => Self::from_channels(values),
            other => Err(StateError::not_an_object(&other)),
        }
    }

    /// An update of nothing, to begin with.
    fn update() -> Self::Update {
        Self::Update::default()
    }

    /// An update that sets every channel that can be written.
    fn into_update(self) -> Self::Update;

    /// The JSON Schema of an input; inputs are checked against it before a run starts.
    fn input_schema() -> Option<Value>;
}

/// The state of a dynamic graph: an object of channels.
impl State for Value {
    type Update = Self;

    fn channels() -> Vec<(ChannelName, ChannelKind)> {
        Vec::new()
    }

    fn from_channels(values: Map<String, Value>) -> Result<Self, StateError> {
        Ok(Self::Object(values))
    }

    fn from_input(input: Value) -> Result<Self, StateError> {
        Ok(input)
    }

    fn into_update(self) -> Self {
        self
    }

    fn input_schema() -> Option<Value> {
        None
    }
}

/// What a run can be started with: an update, a whole state, or JSON.
pub trait IntoInput {
    /// The input as an object of channels.
    ///
    /// # Errors
    /// If it is no JSON.
    fn into_input(self) -> Result<Value, StateError>;
}

impl IntoInput for Value {
    fn into_input(self) -> Result<Value, StateError> {
        Ok(self)
    }
}

/// Values that do not fit a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A channel's value does not have the form of its field.
    #[error("channel `{channel}` does not have the form of the state: {reason}")]
    Form {
        /// The channel.
        channel: ChannelName,
        /// What was expected, and where.
        reason: String,
    },
    /// A required channel has no value.
    #[error("channel `{channel}` is required and was never set; name it in the input")]
    Missing {
        /// The channel.
        channel: ChannelName,
    },
    /// A value cannot be written as JSON.
    #[error("the value for channel `{channel}` is no JSON: {reason}")]
    NoJson {
        /// The channel.
        channel: ChannelName,
        /// Why not.
        reason: String,
    },
    /// An input writes a channel several times.
    #[error("an input sets channel `{channel}` twice; set it once, with the value it comes to")]
    WrittenTwice {
        /// The channel.
        channel: ChannelName,
    },
    /// Something is no object of channels.
    #[error("expected an object of channels, not {found}")]
    NotAnObject {
        /// What was found.
        found: &'static str,
    },
}

impl StateError {
    pub(crate) fn not_an_object(found: &Value) -> Self {
        let found = match found {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a text",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        Self::NotAnObject { found }
    }
}
