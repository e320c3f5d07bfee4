//! The derive of a typed state: `#[derive(State)]`.
//!
//! `parse` reads a struct and its attributes into a model and says what is wrong with them,
//! `expand` writes the code. The documentation of the derive is beside the trait it implements,
//! in the `superstep` crate, whose paths the code names.
//!
//! The rule it keeps: what the derive does not understand is an error at the words that say it,
//! never ignored.

mod case;
mod expand;
mod parse;

use proc_macro::TokenStream;

/// Implements `superstep::State` for a struct and makes its update, `<Name>Update`.
///
/// See `superstep::State` for the attributes and what is made of them.
#[proc_macro_derive(State, attributes(state))]
pub fn derive_state(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    let expanded = parse::StateStruct::parse(&input).map(|model| expand::expand(&model));
    expanded
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}
