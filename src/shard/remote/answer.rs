//! What answers say beside what `object_store` makes of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use chrono::DateTime;
use http::StatusCode;
use http::header::{DATE, LINK, RETRY_AFTER};
use object_store::client::{HttpRequest, HttpResponse};

/// What an answer said beside what `object_store` makes of it. Travels with the request.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer(Arc<Mutex<Said>>);

#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    /// 0 before there is an answer.
    pub(super) status: u16,
    /// How long the server asks to wait.
    pub(super) retry_after: Option<Duration>,
    /// The next page, where there is one.
    pub(super) next: Option<String>,
    /// What the hub says of an error.
    pub(super) error: Option<String>,
    /// The server that it came from, where that is another one than was asked: it got no credentials.
    pub(super) from: Option<String>,
}

tokio::task_local! {
    /// The answer to requests that cannot carry one, as listings.
    pub(super) static ANSWER: Answer;
}

impl Answer {
    pub(super) fn said(&self) -> Said {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what the head of an answer says.
    pub(super) fn note(&self, response: &HttpResponse) {
        let (status, headers) = (response.status(), response.headers());
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let error = match (text("x-error-code"), text("x-error-message")) {
            (Some(code), Some(message)) => Some(format!("{code}: {message}")),
            (code, message) => code.or(message),
        };
        let is_busy = status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Said {
            status: status.as_u16(),
            retry_after: text(RETRY_AFTER.as_str())
                .filter(|_| is_busy)
                .and_then(|asked| retry_after(&asked, text(DATE.as_str()).as_deref())),
            next: text(LINK.as_str()).and_then(|links| next_page(&links)),
            error,
            from: None,
        };
    }

    /// Notes that the answer came from another server than was asked.
    pub(super) fn came_from(&self, server: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).from = Some(server);
    }

    /// The answer that `request` carries, or that its task waits for.
    pub(super) fn of(request: &HttpRequest) -> Option<Self> {
        request.extensions().get::<Self>().cloned().or_else(|| ANSWER.try_with(Clone::clone).ok())
    }
}

/// How long a `Retry-After` asks to wait: seconds, or a date, by the server's clock where that is known.
fn retry_after(asked: &str, now: Option<&str>) -> Option<Duration> {
    if let Ok(seconds) = asked.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| DateTime::parse_from_rfc2822(text.trim()).ok().map(|date| date.timestamp());
    let until = date(asked)?;
    let own =
        || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
    let wait = until.saturating_sub(now.and_then(date).unwrap_or_else(own));
    Some(Duration::from_secs(wait.try_into().unwrap_or(0)))
}

/// The URL that a `Link` header calls the next one.
fn next_page(links: &str) -> Option<String> {
    links.split(',').find_map(|link| {
        let (url, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = |part: &str| matches!(part.trim(), "rel=\"next\"" | "rel=next");
        rest.split(';').any(is_next).then(|| url.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_asks_for_time_in_seconds_or_by_a_date() {
        let now = Some("Fri, 31 Dec 1999 23:59:59 GMT");
        for (asked, expected) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sat, 01 Jan 2000 00:01:59 GMT", Some(120)),
            ("Fri, 31 Dec 1999 23:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("1.5", None),
        ] {
            assert_eq!(retry_after(asked, now), expected.map(Duration::from_secs), "{asked}");
        }
        // Without a date of the server's own the clock here tells.
        assert_eq!(retry_after("Fri, 31 Dec 1999 23:59:59 GMT", None), Some(Duration::ZERO));
    }

    #[test]
    fn the_next_page_is_linked() {
        let links = "<https://h/a?cursor=x%3D>; rel=\"next\"";
        assert_eq!(next_page(links).as_deref(), Some("https://h/a?cursor=x%3D"));
        let several = "<https://h/0>; rel=\"prev\", <https://h/2>; title=\"b\"; rel=\"next\"";
        assert_eq!(next_page(several).as_deref(), Some("https://h/2"));
        assert_eq!(next_page("<https://h/0>; rel=\"prev\""), None);
        assert_eq!(next_page("https://h/0"), None);
    }
}
