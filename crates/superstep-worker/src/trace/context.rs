//! The context of a span as the W3C has it: `traceparent` and `tracestate`.
//!
//! Senders write what they like into headers, so what is not of the form is no context. Higher
//! versions are read as the first one, as the recommendation says.

/// How long a `tracestate` may be; a longer one is left out.
const STATE_BYTES_MAX: usize = 512;

/// A span, as others are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace: u128,
    /// The span.
    pub span: u64,
    /// Whether its spans are kept.
    pub sampled: bool,
    /// What vendors added, as it came.
    pub state: Option<String>,
}

impl TraceContext {
    /// Reads the two headers; `None` if the first is none.
    pub fn parse(parent: &str, state: Option<&str>) -> Option<Self> {
        let mut parts = parent.trim().split('-');
        let version = hex(parts.next()?, 2)?;
        let trace = hex(parts.next()?, 32)?;
        let span = hex(parts.next()?, 16)?;
        let flags = hex(parts.next()?, 2)?;
        let more = parts.next().is_some();
        if version == 0xff || (version == 0 && more) || trace == 0 || span == 0 {
            return None;
        }
        let state = state.map(str::trim).filter(|state| {
            !state.is_empty()
                && state.len() <= STATE_BYTES_MAX
                && state.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        });
        Some(Self {
            trace,
            span: u64::try_from(span).ok()?,
            sampled: flags & 1 == 1,
            state: state.map(str::to_owned),
        })
    }

    /// The first header.
    pub fn traceparent(&self) -> String {
        format!(
            "00-{:032x}-{:016x}-{:02x}",
            self.trace,
            self.span,
            u8::from(self.sampled)
        )
    }

    /// The trace's id as text.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// The span's id as text.
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.span)
    }
}

/// So many lower-case hex digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let plain = text.len() == digits
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    plain.then(|| u128::from_str_radix(text, 16).ok())?
}
