//! Bodies from messages.
//!
//! One function, so that everything that leaves is compact JSON in the contract's own field
//! order. It leaves limits to whoever publishes: only the queue knows how large a body may be.

use serde::Serialize;

/// The body of a message of the contract.
///
/// # Panics
/// Never for the generated types: their maps have text keys.
pub fn body<M: Serialize>(message: &M) -> Vec<u8> {
    serde_json::to_vec(message).expect("a message of the contract has only text keys")
}
