//! The enricher kind: the trait its author implements and the way from the host's columns to it.

use std::cell::RefCell;

use crate::__private::About;
use crate::bindings::enricher::exports::tidemark::plugin::enricher as wit;
use crate::column::{Out, Reader, Row, Writer};
use crate::settings::{Config, Settings};

/// Turns fields of an event into fields.
///
/// Given equal input an enricher must give equal output: the host remembers answers and asks once for each distinct
/// input. A plugin sees no clock, no network and no randomness, so this is so unless it keeps state between rows;
/// one that does says [`STATEFUL`](Enricher::STATEFUL).
pub trait Enricher: Sized + 'static {
    /// True: the answer depends on rows seen before. Nothing is remembered and rows come in order; that is slow.
    const STATEFUL: bool = false;

    /// Sets the plugin up. An error is shown to whoever wrote the definitions, and the definitions are refused.
    /// Check everything here: the number of input fields, the names of the outputs, the config, the files.
    fn new(settings: &Settings) -> Result<Self, String>;

    /// One row: read `row`, write to `out`. What is not written stays without a value.
    fn enrich(&mut self, row: Row<'_>, out: &mut Out<'_>);
}

/// The one instance that a sandbox holds.
#[doc(hidden)]
pub struct EnricherSlot<T> {
    instance: RefCell<Option<(T, usize)>>,
}

impl<T: Enricher> EnricherSlot<T> {
    /// Nothing configured yet.
    pub const fn empty() -> Self {
        EnricherSlot { instance: RefCell::new(None) }
    }

    /// What the plugin says about itself.
    pub fn describe(about: About) -> wit::Metadata {
        crate::host::log_panics();
        wit::Metadata {
            name: about.name.replace('-', "_"),
            version: about.version.to_owned(),
            description: about.description.to_owned(),
            stateful: T::STATEFUL,
        }
    }

    /// Makes the instance.
    pub fn configure(&self, settings: wit::Settings) -> Result<(), String> {
        crate::host::log_panics();
        let settings =
            Settings { input: settings.input, output: settings.output, config: Config::new(settings.config) };
        let instance = T::new(&settings)?;
        self.instance.replace(Some((instance, settings.output.len())));
        Ok(())
    }

    /// Columns in, columns out.
    pub fn enrich(&self, rows: u32, input: Vec<wit::TextColumn>) -> Vec<wit::Column> {
        let mut instance = self.instance.borrow_mut();
        let (plugin, outputs) = instance.as_mut().expect("enrich before configure");
        let mut readers: Vec<Reader> = input.iter().map(|c| Reader::new(c).expect("an input is not UTF-8")).collect();
        let mut values: Vec<Option<&str>> = vec![None; readers.len()];
        let mut writers: Vec<Writer> = (0..*outputs).map(|_| Writer::new(rows as usize)).collect();
        for _ in 0..rows {
            for (value, reader) in values.iter_mut().zip(&mut readers) {
                *value = reader.next_row();
            }
            plugin.enrich(Row::new(&values), &mut Out::new(&mut writers));
            writers.iter_mut().for_each(Writer::end_row);
        }
        writers.into_iter().map(Writer::finish).collect()
    }
}

/// Makes this crate a plugin of kind enricher: `export_enricher!(MyType);` where `MyType` implements [`Enricher`].
#[macro_export]
macro_rules! export_enricher {
    ($plugin:ty) => {
        #[allow(unsafe_code)] // in the generated exports
        const _: () = {
            use $crate::__private::enricher_world::exports::tidemark::plugin::enricher as wit;

            thread_local! {
                static SLOT: $crate::__private::EnricherSlot<$plugin> =
                    const { $crate::__private::EnricherSlot::empty() };
            }

            struct Component;

            impl wit::Guest for Component {
                fn describe() -> wit::Metadata {
                    $crate::__private::EnricherSlot::<$plugin>::describe($crate::__about!())
                }
                fn configure(settings: wit::Settings) -> Result<(), String> {
                    SLOT.with(|slot| slot.configure(settings))
                }
                fn enrich(rows: u32, input: Vec<wit::TextColumn>) -> Vec<wit::Column> {
                    SLOT.with(|slot| slot.enrich(rows, input))
                }
            }

    $crate::__private::enricher_world::export!(Component with_types_in $crate::__private::enricher_world);
        };
    };
}

/// Name, version and description out of the Cargo.toml of the crate that uses the macro.
#[doc(hidden)]
#[macro_export]
macro_rules! __about {
    () => {
        $crate::__private::About {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            description: env!("CARGO_PKG_DESCRIPTION"),
        }
    };
}
