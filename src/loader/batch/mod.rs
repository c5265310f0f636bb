//! Batches: which samples are next, their pixels and tokens, and the memory that they are in.

pub(crate) mod arrays;
pub(crate) mod assemble;
mod deferring;
mod evaluating;
mod filling;
pub(crate) mod memory;
mod row;
mod rows;

pub use arrays::{Batch, Images};
pub use memory::{Dtype, Element, HostArray, Lent, Stock};
pub use rows::Rows;
