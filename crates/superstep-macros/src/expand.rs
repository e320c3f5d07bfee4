//! Expand: a model becomes the implementation of `State`, and the update with its setters.
//!
//! All of the code's weight is in `superstep::derive`, so that what is written here stays a list
//! of names and types. The rule it keeps: every path is absolute, and names what the facade
//! exports for it.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};

use crate::parse::{Field, Kind, StateStruct, argument_of, compact, is_primitive};

pub(crate) fn expand(model: &StateStruct) -> TokenStream {
    let state = state_impl(model);
    let update = update_struct(model);
    quote! { #state #update }
}

fn update_name(model: &StateStruct) -> syn::Ident {
    format_ident!("{}Update", model.ident)
}

fn state_impl(model: &StateStruct) -> TokenStream {
    let ident = &model.ident;
    let update = update_name(model);
    let channels = model.fields.iter().map(|field| {
        let (name, kind) = (&field.channel, channel_of(field));
        quote! { (::superstep::derive::ChannelName::from(#name), #kind) }
    });
    let reads = model.fields.iter().map(|field| {
        let (ident, name) = (&field.ident, &field.channel);
        let read = if field.required {
            quote!(take_required)
        } else {
            quote!(take)
        };
        quote! { #ident: ::superstep::derive::#read(&mut values, #name)?, }
    });
    let writes = writable(model).map(|field| {
        let (ident, name) = (&field.ident, &field.channel);
        quote! { update.writes.set(#name, &self.#ident); }
    });
    let properties = writable(model).map(|field| {
        let (name, ty, required) = (&field.channel, &field.ty, field.required);
        quote! { schema.property::<#ty>(#name, #required); }
    });
    quote! {
        #[automatically_derived]
        impl ::superstep::State for #ident {
            type Update = #update;

            fn channels() -> ::std::vec::Vec<(
                ::superstep::derive::ChannelName,
                ::superstep::Channel,
            )> {
                ::std::vec![#(#channels),*]
            }

            fn from_channels(
                mut values: ::superstep::derive::Map,
            ) -> ::std::result::Result<Self, ::superstep::StateError> {
                ::std::result::Result::Ok(Self { #(#reads)* })
            }

            fn into_update(self) -> Self::Update {
                let mut update = <Self::Update as ::std::default::Default>::default();
                #(#writes)*
                update
            }

            fn input_schema() -> ::std::option::Option<::superstep::derive::Value> {
                let mut schema = ::superstep::derive::SchemaBuilder::new(::std::stringify!(#ident));
                #(#properties)*
                ::std::option::Option::Some(schema.build())
            }
        }
    }
}

fn writable(model: &StateStruct) -> impl Iterator<Item = &Field> {
    model.fields.iter().filter(|field| !field.kind.is_managed())
}

fn channel_of(field: &Field) -> TokenStream {
    let built_in = |name: &str| {
        let variant = match name {
            "append" => quote!(Append),
            "add" => quote!(Add),
            "concat" => quote!(Concat),
            "merge" => quote!(Merge),
            "union" => quote!(Union),
            "max" => quote!(Max),
            "by_id" => quote!(ById),
            _ => quote!(Messages),
        };
        quote!(::superstep::Channel::Reduce(::superstep::Reducer::#variant))
    };
    match &field.kind {
        Kind::Reducer(name) => built_in(name),
        Kind::Custom(path) => {
            let (ty, name) = (&field.ty, compact(path));
            quote!(::superstep::derive::custom_reducer::<#ty>(#name, #path))
        }
        Kind::Channel(name) => match *name {
            "any" => quote!(::superstep::Channel::Any),
            "topic" => quote!(::superstep::Channel::Topic { accumulate: false }),
            "topic_acc" => quote!(::superstep::Channel::Topic { accumulate: true }),
            "ephemeral" => quote!(::superstep::Channel::Ephemeral { guard: true }),
            "untracked" => quote!(::superstep::Channel::Untracked),
            "remaining_steps" => quote!(::superstep::Channel::Managed(
                ::superstep::derive::Managed::RemainingSteps
            )),
            "is_last_step" => quote!(::superstep::Channel::Managed(
                ::superstep::derive::Managed::IsLastStep
            )),
            _ => quote!(::superstep::Channel::Last),
        },
    }
}

fn update_struct(model: &StateStruct) -> TokenStream {
    let (ident, vis) = (&model.ident, &model.vis);
    let update = update_name(model);
    let about = format!(
        "An update of [`{ident}`]: sets only what it names. A channel without a reducer keeps \
         the last value that was set here."
    );
    // An author uses the setters that a graph needs, so an `expect` would complain of the rest.
    let quiet = quote!(#[allow(dead_code, clippy::should_implement_trait)]);
    let setters = writable(model).map(|field| setters(field, vis));
    quote! {
        #[doc = #about]
        #[derive(Clone, Debug, Default)]
        #[must_use]
        #vis struct #update {
            writes: ::superstep::derive::Writes,
        }

        #[automatically_derived]
        #quiet
        impl #update {
            #(#setters)*
        }

        #[automatically_derived]
        impl ::superstep::IntoUpdate<#ident> for #update {
            fn into_writes(self) -> ::superstep::derive::Writes {
                self.writes
            }
        }

        #[automatically_derived]
        impl ::superstep::IntoOutput<#ident> for #update {
            fn into_output(
                self,
            ) -> ::std::result::Result<::superstep::NodeReturn, ::superstep::NodeError> {
                ::superstep::derive::output_of(self.writes)
            }
        }

        #[automatically_derived]
        impl ::superstep::IntoInput for #update {
            fn into_input(
                self,
            ) -> ::std::result::Result<::superstep::derive::Value, ::superstep::StateError> {
                self.writes.into_input()
            }
        }

        #[automatically_derived]
        impl ::superstep::IntoInput for #ident {
            fn into_input(
                self,
            ) -> ::std::result::Result<::superstep::derive::Value, ::superstep::StateError> {
                let update = <Self as ::superstep::State>::into_update(self);
                ::superstep::IntoInput::into_input(update)
            }
        }
    }
}

fn setters(field: &Field, vis: &syn::Visibility) -> TokenStream {
    let mut made = if field.kind.takes_items() {
        item_setters(field, vis)
    } else {
        value_setters(field, vis)
    };
    if field.kind.reduces() {
        let (name, ty, docs) = (&field.channel, &field.ty, &field.docs);
        let overwrite = format_ident!("overwrite_{}", bare(field));
        let about = format!("Replaces the value of `{name}` without its reducer.");
        let (value, convert) = taking(ty);
        made.extend(quote! {
            #[doc = #about]
            #[doc = ""]
            #(#docs)*
            #vis fn #overwrite(mut self, value: #value) -> Self {
                self.writes.overwrite::<#ty>(#name, &#convert);
                self
            }
        });
    }
    made
}

fn value_setters(field: &Field, vis: &syn::Visibility) -> TokenStream {
    let (ident, name, ty, docs) = (&field.ident, &field.channel, &field.ty, &field.docs);
    let write = if field.kind.reduces() {
        quote!(fold)
    } else {
        quote!(set)
    };
    let optional = argument_of(ty, Some("Option")).filter(|_| !field.kind.reduces());
    let set = optional.unwrap_or(ty);
    let (value, convert) = taking(set);
    let verb = if field.kind.reduces() {
        "Gives a value to the reducer of"
    } else {
        "Sets"
    };
    let about = format!("{verb} `{name}`.");
    let clear = optional.map(|_| {
        let clear = format_ident!("clear_{}", bare(field));
        let about = format!("Sets `{name}` to nothing.");
        quote! {
            #[doc = #about]
            #vis fn #clear(mut self) -> Self {
                self.writes.set(#name, &());
                self
            }
        }
    });
    quote! {
        #[doc = #about]
        #[doc = ""]
        #(#docs)*
        #vis fn #ident(mut self, value: #value) -> Self {
            self.writes.#write::<#set>(#name, &#convert);
            self
        }
        #clear
    }
}

fn item_setters(field: &Field, vis: &syn::Visibility) -> TokenStream {
    let (ident, name, ty, docs) = (&field.ident, &field.channel, &field.ty, &field.docs);
    let item = argument_of(ty, None).map_or_else(
        || quote!(<#ty as ::std::iter::IntoIterator>::Item),
        |item| quote!(#item),
    );
    let plain = argument_of(ty, None).is_some_and(is_primitive);
    let (one, convert_one, each) = if plain {
        (quote!(#item), quote!(item), quote!(#item))
    } else {
        (
            quote!(impl ::std::convert::Into<#item>),
            quote!(::std::convert::Into::<#item>::into(item)),
            quote!(impl ::std::convert::Into<#item>),
        )
    };
    let push = format_ident!("push_{}", bare(field));
    let about = format!("Adds items to `{name}`.");
    let about_one = format!("Adds one item to `{name}`.");
    quote! {
        #[doc = #about]
        #[doc = ""]
        #(#docs)*
        #vis fn #ident(
            mut self,
            items: impl ::std::iter::IntoIterator<Item = #each>,
        ) -> Self {
            let items = items.into_iter().map(|item| #convert_one);
            self.writes.extend::<#item>(#name, items);
            self
        }
        #[doc = #about_one]
        #[doc = ""]
        #(#docs)*
        #vis fn #push(mut self, item: #one) -> Self {
            self.writes.extend::<#item>(#name, ::std::iter::once(#convert_one));
            self
        }
    }
}

/// The type that a setter takes for `ty`, and how `value` becomes one.
fn taking(ty: &syn::Type) -> (TokenStream, TokenStream) {
    if is_primitive(ty) {
        (quote!(#ty), quote!(value))
    } else {
        (
            quote!(impl ::std::convert::Into<#ty>),
            quote!(::std::convert::Into::<#ty>::into(value)),
        )
    }
}

/// The field's name without `r#`, to be part of another name.
fn bare(field: &Field) -> String {
    let name = field.ident.to_string();
    name.strip_prefix("r#").unwrap_or(&name).to_owned()
}
