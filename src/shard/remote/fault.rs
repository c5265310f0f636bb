//! What can go wrong with a request: which faults may pass, how long to wait, what to say.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use object_store::client::HttpError;

use crate::shard::remote::advice;
use crate::shard::remote::answer::Said;
use crate::shard::remote::store::Object;

/// Longest cause that a message repeats: servers send whole pages.
const MAX_CAUSE: usize = 300;

/// First wait before a request is made again; each one after it is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Longest wait before a request is made again.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What messages about servers that are not who they say have in common.
const BAD_CERTIFICATE: &str = "invalid peer certificate";

/// Most retries of a request that found no credentials: whoever serves them is near.
const CREDENTIAL_RETRIES: u32 = 2;

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: FaultKind,
    pub(super) cause: String,
    /// How long the server asks to wait before the request is made again.
    asked: Option<Duration>,
    /// What to do where access is denied.
    advice: String,
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
        Self { kind, cause: cause.into(), asked: None, advice: String::new() }
    }

    /// Judges a request that `object_store` gave up, answered with what the answer `said`.
    pub(super) fn of_request(error: &object_store::Error, said: &Said, object: &Object) -> Self {
        let kind = match said.status {
            200 => FaultKind::WholeOnly,
            0 if has_bad_certificate(error) => FaultKind::Lasting,
            0 if asked_for_credentials(error) => FaultKind::NoCredentials,
            0 if is_of_transport(error) => FaultKind::Passing,
            status => of_status(status),
        };
        Self::judged(kind, cause(error, object), said, object)
    }

    /// Judges a listing, whose status is not known.
    pub(super) fn of_list(error: &object_store::Error, said: &Said, object: &Object) -> Self {
        let kind = match error {
            object_store::Error::NotFound { .. } => FaultKind::Missing,
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                FaultKind::Denied
            }
            _ if asked_for_credentials(error) => FaultKind::NoCredentials,
            _ => FaultKind::Passing,
        };
        Self::judged(kind, cause(error, object), said, object)
    }

    /// Judges the answer to a request that was not made by `object_store`: its head, and its `content`.
    pub(super) fn of_page(said: &Said, content: &[u8], object: &Object) -> Self {
        let text = String::from_utf8_lossy(content);
        let cause = plain(&format!("the server answered with status {}: {text}", said.status), object);
        Self::judged(of_status(said.status), cause, said, object)
    }

    /// Judges such a request that was not answered.
    pub(super) fn of_transport(error: &HttpError, object: &Object) -> Self {
        let root = chain(error).last().map(ToString::to_string).unwrap_or_default();
        let is_lasting = chain(error).any(|error| error.to_string().contains(BAD_CERTIFICATE));
        let kind = if is_lasting { FaultKind::Lasting } else { FaultKind::Passing };
        Self::new(kind, plain(&root, object))
    }

    /// Judges a body that broke off.
    pub(super) fn of_body(error: &object_store::Error, object: &Object) -> Self {
        Self::new(FaultKind::Passing, format!("the answer broke off: {}", cause(error, object)))
    }

    fn judged(kind: FaultKind, mut cause: String, said: &Said, object: &Object) -> Self {
        if let Some(error) = &said.error {
            // What the hub says of it in the head is what people can read.
            cause = plain(&format!("the server answered with status {}: {error}", said.status), object);
        }
        let advice = match kind {
            FaultKind::Denied => advice::denied(said, object),
            FaultKind::NoCredentials => advice::without_credentials(object),
            _ => String::new(),
        };
        Self { kind, cause, asked: said.retry_after, advice }
    }

    /// How many retries this fault is worth, of `retries`.
    fn retries(&self, retries: u32) -> u32 {
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
            FaultKind::NoCredentials => (io::ErrorKind::PermissionDenied, "no credentials were found; "),
            FaultKind::Missing => (
                io::ErrorKind::NotFound,
                "there is no such object; check the name, or the range of the list: ",
            ),
            FaultKind::Denied => (io::ErrorKind::PermissionDenied, "access is denied; "),
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
            FaultKind::Passing if self.asked.is_none() => {
                "; is the address right, and the store up and within reach?"
            }
            _ => "",
        };
        let advice = if self.advice.is_empty() { String::new() } else { format!("{}: ", self.advice) };
        io::Error::new(kind, format!("{tried} failed{times}: {what}{advice}{}{ask}", self.cause))
    }
}

/// The waits of one request that is made again.
#[derive(Debug)]
pub(super) struct Patience {
    retries: u32,
    attempts: u32,
    /// What is left of the time that all waits take together.
    left: Duration,
}

impl Patience {
    pub(super) fn new(retries: u32) -> Self {
        // From the eighth wait on they are the longest ones.
        let first: Duration = (1..=retries.min(7)).map(wait).sum();
        let left = first.saturating_add(LONGEST_WAIT.saturating_mul(retries.saturating_sub(7)));
        Self { retries, attempts: 0, left }
    }

    /// How often the request was made.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How long to wait after this fault; `None` where the request is not made again.
    pub(super) fn after(&mut self, fault: &mut Fault) -> Option<Duration> {
        self.attempts += 1;
        if self.attempts > fault.retries(self.retries) {
            return None;
        }
        let asked = fault.asked.unwrap_or_default();
        if asked > self.left {
            let (asked, left) = (asked.as_secs(), self.left.as_secs_f64());
            fault.cause = format!(
                "{}; the server asks to wait {asked} s (Retry-After), and retries={} leaves {left:.1} s: give more \
                 retries, read fewer shards at a time, or start again later",
                fault.cause, self.retries
            );
            return None;
        }
        let wait = wait(self.attempts).max(asked);
        self.left = self.left.saturating_sub(wait);
        Some(wait)
    }
}

/// The wait before retry `number`, from 1 on. Without jitter: a run does the same again.
fn wait(number: u32) -> Duration {
    FIRST_WAIT.saturating_mul(1 << number.saturating_sub(1).min(16)).min(LONGEST_WAIT)
}

/// Tells of a retry: the first of an object, the second, the fourth, and so on.
pub(super) fn tell(object: &Object, tried: &str, fault: &Fault, wait: Duration) {
    let count = 1 + object.learnt.retries.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    if count.is_power_of_two() {
        tracing::warn!(
            shard = object.url(),
            retries = count,
            "{tried} is made again in {wait:?}: {}",
            fault.cause
        );
    }
}

fn of_status(status: u16) -> FaultKind {
    match status {
        404 | 410 => FaultKind::Missing,
        401 | 403 => FaultKind::Denied,
        412 => FaultKind::Replaced,
        416 => FaultKind::OutOfRange,
        408 | 429 | 500..=599 => FaultKind::Passing,
        _ => FaultKind::Lasting,
    }
}

fn is_of_transport(error: &object_store::Error) -> bool {
    chain(error).any(|error| error.is::<HttpError>())
}

/// Whether the server is not who it says: asking again does not help.
fn has_bad_certificate(error: &object_store::Error) -> bool {
    chain(error).any(|error| error.to_string().contains(BAD_CERTIFICATE))
}

/// Whether the request got no further than the services that hand out credentials.
fn asked_for_credentials(error: &object_store::Error) -> bool {
    let text = error.to_string();
    ["169.254.", "metadata.google", "/latest/api/token"].iter().any(|place| text.contains(place))
}

fn chain<E: std::error::Error + 'static>(
    error: &E,
) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
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
    plain(&text, object)
}

/// A text of a server as messages show it.
fn plain(text: &str, object: &Object) -> String {
    let mut text = text.to_owned();
    if let Some(secret) = &object.secret {
        text = text.replace(secret.as_str(), "...");
    }
    // Servers answer with whole pages, of which the status says it all; stores name the error.
    if let Some((start, page)) = text.split_once(": <") {
        let code = page.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
        text = code.map_or_else(|| start.to_owned(), |(code, _)| format!("{start}: {code}"));
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

    #[test]
    fn a_server_is_given_the_time_that_the_retries_leave() {
        let busy = |seconds| Fault {
            asked: Some(Duration::from_secs(seconds)),
            ..Fault::new(FaultKind::Passing, "429")
        };
        // 0.1 + 0.2 + 0.4 + 0.8 + 1.6 + 3.2 + 6.4 + 10 = 22.7 seconds.
        let mut patience = Patience::new(8);
        let waits: Vec<_> = [0, 5, 12]
            .into_iter()
            .map(|asked| patience.after(&mut busy(asked)).map(|wait| wait.as_millis()))
            .collect();
        assert_eq!(waits, [Some(100), Some(5000), Some(12_000)]);
        let mut fault = busy(6);
        assert_eq!(patience.after(&mut fault), None);
        assert!(
            fault.cause.contains("asks to wait 6 s (Retry-After), and retries=8 leaves 5.6 s"),
            "{}",
            fault.cause
        );
        assert_eq!(patience.attempts(), 4);
        // A number is a bound all the same.
        let mut patience = Patience::new(2);
        assert!(patience.after(&mut busy(0)).is_some() && patience.after(&mut busy(0)).is_some());
        assert_eq!(patience.after(&mut busy(0)), None);
        assert!(Patience::new(u32::MAX).left > Duration::from_secs(1 << 32));
    }
}
