//! What is a context, and that spans are named alike wherever they are told.
