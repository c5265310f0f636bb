//! What stages send each other. A channel that closes without [`Message::End`] means that its thread died, which is
//! reported instead of taken for the end of the data.

use std::any::Any;

use crossbeam_channel::Receiver;

use crate::error::{Error, Result};
use crate::loader::stage::Stage;

/// What travels between two threads.
pub(crate) enum Message<T> {
    /// Data.
    Item(T),
    /// The run is over, for this reason.
    Failed(Error),
    /// Everything was sent.
    End,
}

/// Receives the next item; `None` at the end.
pub(crate) fn receive<T>(from: &Receiver<Message<T>>, stage: Stage) -> Result<Option<T>> {
    match from.recv() {
        Ok(Message::Item(item)) => Ok(Some(item)),
        Ok(Message::End) => Ok(None),
        Ok(Message::Failed(error)) => Err(error),
        Err(_) => Err(stage.gone()),
    }
}

/// The text of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".into())
}
