//! Tests of the captioner, in one binary: a file for each promise.

mod blip;
mod captioner;
mod encode;
mod matcher;
mod quality;
mod tensors;
mod training;
#[path = "../../../../tests/core/support/wait.rs"]
mod wait;
