//! Tests of the command with the captioner, in one binary.

mod gate_worth;
mod load;
mod refused;
#[path = "../../../../tests/core/support/wait.rs"]
mod wait;
