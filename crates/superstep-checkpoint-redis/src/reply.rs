//! Reading what the server answers.
//!
//! Answers are taken apart by the type that a place calls for, without copying bytes. The rule it
//! keeps: an answer of another form is an error of kind `Corrupt` that says where it was met.

use redis::Value;
use superstep_checkpoint::Error;

use crate::codec::corrupt;

/// An answer, and of what.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) value: Value,
    what: &'static str,
}

impl Reply {
    /// The answer to `what`, which is named if it cannot be read.
    pub(crate) fn new(what: &'static str, value: Value) -> Self {
        Self { value, what }
    }

    /// The error of an answer that cannot be read.
    pub(crate) fn corrupt(&self) -> Error {
        corrupt(&format!("the answer to {}", self.what))
    }

    /// A number.
    pub(crate) fn integer(self) -> Result<i64, Error> {
        match self.value {
            Value::Int(number) => Ok(number),
            _ => Err(self.corrupt()),
        }
    }

    /// A number that is not negative.
    pub(crate) fn count(self) -> Result<u64, Error> {
        let what = self.what;
        let number = self.integer()?;
        u64::try_from(number).map_err(|_| Self::new(what, Value::Nil).corrupt())
    }

    /// Bytes, or nothing.
    pub(crate) fn bytes(self) -> Result<Option<Vec<u8>>, Error> {
        match self.value {
            Value::BulkString(bytes) => Ok(Some(bytes)),
            Value::SimpleString(text) => Ok(Some(text.into_bytes())),
            Value::Okay => Ok(Some(b"OK".to_vec())),
            Value::Nil => Ok(None),
            _ => Err(self.corrupt()),
        }
    }

    /// Text, or nothing.
    pub(crate) fn maybe_text(self) -> Result<Option<String>, Error> {
        let what = self.what;
        let bytes = self.bytes()?;
        bytes
            .map(|bytes| {
                String::from_utf8(bytes).map_err(|_| Self::new(what, Value::Nil).corrupt())
            })
            .transpose()
    }

    /// Text.
    pub(crate) fn text(self) -> Result<String, Error> {
        let what = self.what;
        let text = self.maybe_text()?;
        text.ok_or_else(|| Self::new(what, Value::Nil).corrupt())
    }

    /// A list, or nothing.
    pub(crate) fn maybe_list(self) -> Result<Option<Vec<Self>>, Error> {
        match self.value {
            Value::Array(values) => Ok(Some(
                values
                    .into_iter()
                    .map(|value| Self::new(self.what, value))
                    .collect(),
            )),
            Value::Nil => Ok(None),
            _ => Err(self.corrupt()),
        }
    }

    /// A list.
    pub(crate) fn list(self) -> Result<Vec<Self>, Error> {
        let what = self.what;
        let list = self.maybe_list()?;
        list.ok_or_else(|| Self::new(what, Value::Nil).corrupt())
    }

    /// A list of exactly so many.
    pub(crate) fn array<const N: usize>(self) -> Result<[Self; N], Error> {
        let what = self.what;
        let list = self.list()?;
        list.try_into()
            .map_err(|_| Self::new(what, Value::Nil).corrupt())
    }

    /// A list of texts.
    pub(crate) fn texts(self) -> Result<Vec<String>, Error> {
        self.list()?.into_iter().map(Self::text).collect()
    }
}
