//! What the loader remembers of samples it has seen: signals and captions.
//!
//! A ledger is a cache. Deleting it changes nothing but the time: signals are a function of the
//! sample and the captioner, captions of the sample and the generation settings.

mod memory;

pub use memory::{Ledger, WindowKey, WindowRecord};
