//! Stores and objects: from an address to something that answers requests.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use crate::error::{Error, Result};
use crate::shard::Store;
use crate::shard::remote::address::{Address, Kind};
use crate::shard::remote::identity::Identity;

/// One object. Clones share what was learnt of it.
#[derive(Clone)]
pub(crate) struct Object {
    pub(super) url: Arc<str>,
    pub(super) origin: Origin,
    pub(super) options: Arc<Store>,
    pub(super) learnt: Arc<Learnt>,
    /// The query of its URL, which messages must not show.
    pub(super) secret: Option<String>,
}

/// Whom to ask for an object.
#[derive(Clone)]
pub(super) enum Origin {
    Bucket(Arc<dyn ObjectStore>, Path),
    Http(Url, Shared),
}

/// What was learnt of an object.
#[derive(Debug, Default)]
pub(super) struct Learnt {
    /// Its server answers range requests with everything.
    pub(super) whole_only: AtomicBool,
    /// Requests that were made again.
    pub(super) retries: AtomicU64,
    /// The version that was read last.
    pub(super) identity: Mutex<Option<Identity>>,
}

impl Learnt {
    /// Notes the version that is read.
    pub(super) fn read(&self, identity: &Identity) {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = Some(identity.clone());
    }
}

impl Object {
    /// The version that was read last, where parts of it can be asked for.
    pub(crate) fn version(&self) -> Option<Identity> {
        if self.learnt.whole_only.load(Ordering::Relaxed) {
            return None;
        }
        self.last_read()
    }

    /// The version that was read last.
    pub(crate) fn last_read(&self) -> Option<Identity> {
        self.learnt.identity.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes a version as if it had been read.
    pub(crate) fn note_version(&self, identity: &Identity) {
        self.learnt.read(identity);
    }

    /// Its URL, without a query.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The object `name` in the same folder.
    ///
    /// # Errors
    /// A name that the store cannot have.
    pub(crate) fn beside(&self, name: &str) -> Result<Self> {
        match &self.origin {
            Origin::Http(url, client) => {
                let mut url = url.clone();
                if let Ok(mut segments) = url.path_segments_mut() {
                    segments.pop().push(name);
                }
                Ok(http_object(url, client.clone(), &self.options))
            }
            Origin::Bucket(store, path) => {
                let folder = path.as_ref().rsplit_once('/').map_or("", |(folder, _)| folder);
                let shown = self.url.rsplit_once('/').map_or("", |(folder, _)| folder);
                let path =
                    key(&if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") })?;
                Ok(Self {
                    url: format!("{shown}/{name}").into(),
                    origin: Origin::Bucket(Arc::clone(store), path),
                    learnt: Arc::default(),
                    ..self.clone()
                })
            }
        }
    }

    /// Who answers requests for it, and by what name. Made anew where it is on an HTTP server:
    /// that is cheap, and a list may hold a million.
    pub(super) fn store(&self) -> object_store::Result<(Arc<dyn ObjectStore>, Path)> {
        match &self.origin {
            Origin::Bucket(store, path) => Ok((Arc::clone(store), path.clone())),
            Origin::Http(url, client) => {
                // The whole URL is the store's root: a path would be encoded anew, and the query
                // lost.
                let store = HttpBuilder::new()
                    .with_url(url.as_str())
                    .with_retry(no_retries())
                    .with_http_connector(client.clone())
                    .build()?;
                Ok((Arc::new(store), Path::default()))
            }
        }
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Object").field(&self.url).finish()
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        (&self.url, &self.secret, &self.options) == (&other.url, &other.secret, &other.options)
    }
}

impl Eq for Object {}

/// The stores of one list: a client for each bucket, and one for all HTTP servers.
pub(crate) struct Stores {
    options: Arc<Store>,
    buckets: HashMap<String, Arc<dyn ObjectStore>>,
    http: Option<Shared>,
}

impl Stores {
    pub(crate) fn new(options: &Store) -> Self {
        Self { options: Arc::new(options.clone()), buckets: HashMap::new(), http: None }
    }

    /// The object at `address`; whether it exists is not asked.
    ///
    /// # Errors
    /// A store that cannot be set up, a key that it cannot have.
    pub(crate) fn object(&mut self, address: &Address) -> Result<Object> {
        match address {
            Address::Http(url) => {
                let client = match &self.http {
                    Some(client) => client.clone(),
                    None => self.http.insert(Shared::new(&self.options)?).clone(),
                };
                Ok(http_object(url.clone(), client, &self.options))
            }
            Address::Bucket { kind, root, bucket, key: name } => Ok(Object {
                url: address.url().into(),
                origin: Origin::Bucket(self.bucket(*kind, root, bucket)?, key(name)?),
                options: Arc::clone(&self.options),
                learnt: Arc::default(),
                secret: None,
            }),
        }
    }

    fn bucket(&mut self, kind: Kind, root: &str, bucket: &str) -> Result<Arc<dyn ObjectStore>> {
        if let Some(store) = self.buckets.get(root) {
            return Ok(Arc::clone(store));
        }
        let store = connect(kind, root, bucket, &self.options, no_retries()).map_err(|error| {
            let accepted =
                format!("a bucket; AWS_*, GOOGLE_* and AZURE_* variables say how to ask it: {error}");
            Error::option("urls", format!("{root:?}"), accepted)
        })?;
        self.buckets.insert(root.to_owned(), Arc::clone(&store));
        Ok(store)
    }
}

/// A client for one bucket, with what the environment says.
pub(super) fn connect(
    kind: Kind,
    root: &str,
    bucket: &str,
    options: &Store,
    retry: RetryConfig,
) -> object_store::Result<Arc<dyn ObjectStore>> {
    let connector = |insecure| Connector { options: options.clone(), insecure };
    Ok(match kind {
        Kind::S3 => {
            let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry);
            if let Some(endpoint) = &options.endpoint {
                builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
            }
            let endpoints = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
            let endpoint = endpoints.iter().find_map(|key| builder.get_config_value(key));
            let insecure = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
            Arc::new(builder.with_http_connector(connector(insecure)).build()?)
        }
        Kind::Gcs => Arc::new(
            GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(bucket)
                .with_retry(retry)
                .with_http_connector(connector(false))
                .build()?,
        ),
        Kind::Azure => Arc::new(
            MicrosoftAzureBuilder::from_env()
                .with_url(root)
                .with_retry(retry)
                .with_http_connector(connector(false))
                .build()?,
        ),
    })
}

/// Retries are made in `fetch`, where they resume, are counted and are told of.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

pub(super) fn key(name: &str) -> Result<Path> {
    Path::parse(name).map_err(|error| Error::refused("urls", format!("{name:?}"), error.to_string()))
}

fn http_object(url: Url, client: Shared, options: &Arc<Store>) -> Object {
    Object {
        url: url[..url::Position::AfterPath].into(),
        options: Arc::clone(options),
        learnt: Arc::default(),
        secret: url.query().map(str::to_owned),
        origin: Origin::Http(url, client),
    }
}

/// Makes clients that note the status of answers.
#[derive(Debug)]
struct Connector {
    options: Store,
    insecure: bool,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // Refused only where a provider is installed already, which will do as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // An answer may take as long as it likes while bytes keep coming. `fetch` watches over
        // that; what it does not see, listings and credentials, is watched over here.
        let limit = self.options.read_timeout.saturating_add(Duration::from_secs(1));
        let mut options = options.clone().with_timeout_disabled().with_read_timeout(limit);
        if self.insecure {
            options = options.with_allow_http(true);
        }
        Ok(HttpClient::new(Noting(ReqwestConnector::default().connect(&options)?)))
    }
}

/// One client, and its connections, for all HTTP servers of a list.
#[derive(Debug, Clone)]
pub(super) struct Shared(HttpClient);

impl Shared {
    fn new(options: &Store) -> Result<Self> {
        let connector = Connector { options: options.clone(), insecure: true };
        let client = connector.connect(&ClientOptions::new());
        client.map(Self).map_err(|error| Error::io("set up an HTTP client", std::io::Error::other(error)))
    }
}

impl HttpConnector for Shared {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.0.clone())
    }
}

/// The status that a request was answered with; 0 before. Travels with the request's options:
/// errors of `object_store` do not tell it.
#[derive(Debug, Clone, Default)]
pub(super) struct Status(Arc<AtomicU16>);

impl Status {
    pub(super) fn code(&self) -> u16 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Noting(HttpClient);

impl HttpService for Noting {
    // Written out as `async_trait` does, which is a dependency less.
    fn call<'s, 'f>(
        &'s self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = std::result::Result<HttpResponse, HttpError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            let status = request.extensions().get::<Status>().cloned();
            let response = self.0.execute(request).await?;
            if let Some(status) = status {
                status.0.store(response.status().as_u16(), Ordering::Relaxed);
            }
            Ok(response)
        })
    }
}
