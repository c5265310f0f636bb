//! The client for HTTP servers: follows redirects, and sends credentials to nobody but whom they are for.
//!
//! A server gets the token and the headers that are meant for it. Where it redirects to another (scheme, host or port), that
//! one gets none of them: only what the request is about. Redirects of the Hugging Face hub lead to signed URLs that
//! expire; the last one is remembered with the object, so that not every range asks the hub again.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{
    ACCEPT, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, LAST_MODIFIED, LOCATION, RANGE,
};
use http::{Method, StatusCode};
use object_store::client::{
    HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpService,
};
use url::Url;

use crate::shard::remote::answer::Answer;
use crate::shard::remote::trust::{Credentials, server};

/// Most redirects of one request, as browsers have it.
const MAX_REDIRECTS: usize = 20;

/// What a server gets that another one redirects to.
const HARMLESS: [HeaderName; 3] = [ACCEPT, IF_MATCH, RANGE];

/// The version of what a redirect of the hub leads to.
const LINKED_ETAG: &str = "x-linked-etag";

/// The commit that an answer of the hub is of.
const COMMIT: &str = "x-repo-commit";

/// Where the last redirect led to, and the version of what is there.
#[derive(Debug, Default)]
pub(super) struct Landing(Mutex<Option<(Url, HeaderValue)>>);

impl Landing {
    fn get(&self) -> Option<(Url, HeaderValue)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, landing: Option<(Url, HeaderValue)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = landing;
    }
}

/// Asks HTTP servers.
#[derive(Debug)]
pub(super) struct Web {
    client: HttpClient,
    credentials: Arc<Credentials>,
}

impl Web {
    pub(super) fn new(client: HttpClient, credentials: Arc<Credentials>) -> Self {
        Self { client, credentials }
    }

    /// A client that follows no redirect.
    ///
    /// # Errors
    /// The system has no certificates, or no randomness.
    pub(super) fn client(limit: Duration) -> std::io::Result<HttpClient> {
        // Refused only where a provider is installed already, which will do as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .user_agent(concat!("tldr-loader/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .read_timeout(limit)
            .http1_only()
            .build();
        client.map(HttpClient::new).map_err(std::io::Error::other)
    }

    async fn ask(&self, url: &Url, method: &Method, headers: HeaderMap) -> Result<HttpResponse, HttpError> {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = method.clone();
        *request.uri_mut() = url.as_str().parse().map_err(unusable)?;
        *request.headers_mut() = headers;
        self.client.execute(request).await
    }

    async fn follow(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = Answer::of(&request);
        let (parts, _) = request.into_parts();
        let first = Url::parse(&parts.uri.to_string()).map_err(unusable)?;
        let harmless = |linked: bool| {
            let is_sent = |name: &HeaderName| HARMLESS.contains(name) && !(linked && *name == IF_MATCH);
            let sent = parts.headers.iter().filter(|(name, _)| is_sent(name));
            sent.map(|(name, value)| (name.clone(), value.clone())).collect::<HeaderMap>()
        };
        let landing = parts.extensions.get::<Arc<Landing>>();
        if let Some((url, etag)) = landing.and_then(|landing| landing.get()) {
            let found = self.ask(&url, &parts.method, harmless(true)).await;
            let status = found.as_ref().map(HttpResponse::status);
            if let Some(landing) = landing.filter(|_| !status.is_ok_and(is_of_object)) {
                landing.set(None);
            }
            // A signature that has expired is answered by 400, 401 or 403, according to the store.
            if !status
                .is_ok_and(|status| status.is_client_error() && !is_of_object(status) && !is_busy(status))
            {
                return found.map(|found| noted(found, answer.as_ref(), Some(&etag)));
            }
        }
        let (mut url, mut linked, mut commit) = (first.clone(), None, None);
        let mut last = None;
        for _ in 0..=MAX_REDIRECTS {
            let headers = if server(&url) == server(&first) {
                let mut headers = parts.headers.clone();
                headers.extend(self.credentials.of(&url));
                headers
            } else {
                harmless(linked.is_some())
            };
            let found = self.ask(&url, &parts.method, headers).await?;
            let target = found.headers().get(LOCATION).filter(|_| is_redirect(found.status()));
            let Some(target) = target else {
                // The commit tells less, as it changes with every other file.
                let linked = linked.or(commit.filter(|_| !found.headers().contains_key(ETAG)));
                let other = Some(server(&url)).filter(|other| *other != server(&first));
                if let (Some(landing), Some(etag)) =
                    (landing, linked.clone().filter(|_| is_of_object(found.status())))
                {
                    landing.set(Some((url, etag)));
                }
                let found = noted(found, answer.as_ref(), linked.as_ref());
                if let (Some(answer), Some(other)) = (&answer, other) {
                    answer.came_from(other);
                }
                return Ok(found);
            };
            let next = target.to_str().ok().and_then(|target| url.join(target).ok());
            let next = next.filter(|next| matches!(next.scheme(), "http" | "https"));
            if server(&url) == server(&first) {
                linked = linked.or(found.headers().get(LINKED_ETAG).cloned());
                commit = commit.or(found.headers().get(COMMIT).cloned());
            }
            let Some(next) = next else {
                return Ok(noted(found, answer.as_ref(), None));
            };
            url = next;
            last = Some(found);
        }
        if let (Some(answer), Some(last)) = (answer, last) {
            answer.note(&last);
        }
        let cause = std::io::Error::other(format!("more than {MAX_REDIRECTS} redirects"));
        Err(HttpError::new(HttpErrorKind::Request, cause))
    }
}

impl HttpService for Web {
    // Written out as `async_trait` does, which is a dependency less.
    fn call<'s, 'f>(
        &'s self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        Box::pin(self.follow(request))
    }
}

fn unusable(error: impl std::error::Error + Send + Sync + 'static) -> HttpError {
    HttpError::new(HttpErrorKind::Request, error)
}

/// Whether an answer of this status speaks of the object.
fn is_of_object(status: StatusCode) -> bool {
    status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE
}

fn is_busy(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::REQUEST_TIMEOUT
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The last answer. Its version is what the redirect to it `linked`, which is the same from every store behind it.
fn noted(mut found: HttpResponse, answer: Option<&Answer>, linked: Option<&HeaderValue>) -> HttpResponse {
    if let Some(etag) = linked.filter(|_| is_of_object(found.status())) {
        found.headers_mut().insert(ETAG, etag.clone());
        found.headers_mut().remove(LAST_MODIFIED);
    }
    if let Some(answer) = answer {
        answer.note(&found);
    }
    found
}
