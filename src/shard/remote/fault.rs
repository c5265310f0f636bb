//! What can go wrong with a request: which faults may pass, how long to wait, what to say.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use object_store::client::HttpError;

use crate::shard::remote::store::Object;

/// Longest cause that a message repeats: servers send whole pages.
const MAX_CAUSE: usize = 300;

/// First wait before a request is made again; each one after it is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Longest wait before a request is made again.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Most retries of a request that found no credentials: whoever serves them is near.
const CREDENTIAL_RETRIES: u32 = 2;

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: FaultKind,
    pub(super) cause: String,
}

/// What a fault means for what comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// It may pass: the request is made again.
    Passing,
    /// As `Passing`, on the way to credentials.
    NoCredentials,
    /// There is no such object.
    Missing,
    /// It must not be read.
    Denied,
    /// It is not the object that it was.
    Replaced,
    /// The server answers with everything where a range was asked for.
    WholeOnly,
    /// The range lies outside of the object.
    OutOfRange,
    /// It will not pass.
    Lasting,
}

impl Fault {
    pub(super) fn new(kind: FaultKind, cause: impl Into<String>) -> Self {
        Self { kind, cause: cause.into() }
    }

    /// Judges a request that `object_store` gave up, answered with `status` (0: not answered).
    pub(super) fn of_request(error: &object_store::Error, status: u16, object: &Object) -> Self {
        let kind = match status {
            404 | 410 => FaultKind::Missing,
            401 | 403 => FaultKind::Denied,
            412 => FaultKind::Replaced,
            416 => FaultKind::OutOfRange,
            200 => FaultKind::WholeOnly,
            408 | 429 | 500..=599 => FaultKind::Passing,
            0 if has_bad_certificate(error) => FaultKind::Lasting,
            0 if asked_for_credentials(error) => FaultKind::NoCredentials,
            0 if is_of_transport(error) => FaultKind::Passing,
            _ => FaultKind::Lasting,
        };
        Self { kind, cause: cause(error, object) }
    }

    /// Judges a listing, whose status is not known.
    pub(super) fn of_list(error: &object_store::Error, object: &Object) -> Self {
        let kind = match error {
            object_store::Error::NotFound { .. } => FaultKind::Missing,
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                FaultKind::Denied
            }
            _ if asked_for_credentials(error) => FaultKind::NoCredentials,
            _ => FaultKind::Passing,
        };
        Self { kind, cause: cause(error, object) }
    }

    /// Judges a body that broke off.
    pub(super) fn of_body(error: &object_store::Error, object: &Object) -> Self {
        Self { kind: FaultKind::Passing, cause: format!("the answer broke off: {}", cause(error, object)) }
    }

    /// How many retries this fault is worth, of `retries`.
    pub(super) fn retries(&self, retries: u32) -> u32 {
        match self.kind {
            FaultKind::Passing => retries,
            FaultKind::NoCredentials => retries.min(CREDENTIAL_RETRIES),
            _ => 0,
        }
    }

    /// The fault as what a reader returns; `tried` says what was asked for, `attempts` how often.
    pub(super) fn into_io(self, tried: &str, attempts: u32) -> io::Error {
        let (kind, what) = match self.kind {
            FaultKind::Passing => (io::ErrorKind::Other, ""),
            FaultKind::NoCredentials => (
                io::ErrorKind::PermissionDenied,
                "no credentials were found; set them (AWS_ACCESS_KEY_ID and so on), or, for a public bucket, \
                 AWS_SKIP_SIGNATURE=true or GOOGLE_SKIP_SIGNATURE=true: ",
            ),
            FaultKind::Missing => (
                io::ErrorKind::NotFound,
                "there is no such object; check the name, or the range of the list: ",
            ),
            FaultKind::Denied => (
                io::ErrorKind::PermissionDenied,
                "access is denied; check the credentials in the environment, or the signature of the URL: ",
            ),
            FaultKind::Replaced => {
                (io::ErrorKind::InvalidData, "it was replaced while it was read; start the run again: ")
            }
            FaultKind::WholeOnly | FaultKind::OutOfRange | FaultKind::Lasting => (io::ErrorKind::Other, ""),
        };
        let times = match attempts {
            0 | 1 => String::new(),
            n => format!(" {n} times, the last time"),
        };
        let ask = match self.kind {
            FaultKind::Passing => "; is the address right, and the store up and within reach?",
            _ => "",
        };
        io::Error::new(kind, format!("{tried} failed{times}: {what}{}{ask}", self.cause))
    }
}

/// The wait before retry `number`, from 1 on. Without jitter: a run does the same again.
pub(super) fn wait(number: u32) -> Duration {
    FIRST_WAIT.saturating_mul(1 << number.saturating_sub(1).min(16)).min(LONGEST_WAIT)
}

/// Tells of a retry: the first of an object, the second, the fourth, and so on.
pub(super) fn tell(object: &Object, tried: &str, fault: &Fault) {
    let count = 1 + object.learnt.retries.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    if count.is_power_of_two() {
        tracing::warn!(shard = object.url(), retries = count, "{tried} is made again: {}", fault.cause);
    }
}

fn is_of_transport(error: &object_store::Error) -> bool {
    chain(error).any(|error| error.is::<HttpError>())
}

/// Whether the server is not who it says: asking again does not help.
fn has_bad_certificate(error: &object_store::Error) -> bool {
    chain(error).any(|error| error.to_string().contains("invalid peer certificate"))
}

/// Whether the request got no further than the services that hand out credentials.
fn asked_for_credentials(error: &object_store::Error) -> bool {
    let text = error.to_string();
    ["169.254.", "metadata.google", "/latest/api/token"].iter().any(|place| text.contains(place))
}

fn chain(error: &object_store::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |&error| error.source())
}

/// What went wrong, in one line, without the query of the URL.
fn cause(error: &object_store::Error, object: &Object) -> String {
    let whole = error.to_string();
    // What comes before says which request it was, with its whole URL.
    let mut text = whole.split_once(" - ").map_or(whole.as_str(), |(_, cause)| cause).to_owned();
    // Transport errors keep the part worth knowing ("connection refused") at their root.
    if let Some(root) = chain(error).last().map(ToString::to_string)
        && !text.contains(&root)
        && error.source().is_some()
    {
        text = format!("{text}: {root}");
    }
    if let Some(secret) = &object.secret {
        text = text.replace(secret.as_str(), "...");
    }
    // Servers answer with whole pages, of which the status says it all.
    if let Some((start, _)) = text.split_once(": <") {
        text.truncate(start.len());
    }
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = text.char_indices().nth(MAX_CAUSE) {
        text.truncate(end);
        text.push_str("...");
    }
    text.trim_end_matches([':', ' ']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_are_the_same_each_time() {
        let waits: Vec<u128> = (1..=9).map(|number| wait(number).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(wait(u32::MAX), LONGEST_WAIT);
    }
}
