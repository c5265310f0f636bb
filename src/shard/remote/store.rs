//! Stores and objects: from an address to something that answers requests.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
use crate::options::HIDDEN;
use crate::shard::Store;
use crate::shard::remote::address::{Address, Kind};
use crate::shard::remote::answer::Answer;
use crate::shard::remote::cache::Cache;
use crate::shard::remote::hub::{self, HubFile};
use crate::shard::remote::identity::Identity;
use crate::shard::remote::trust::{Credentials, TOKENS, server};
use crate::shard::remote::web::{Landing, Web};

/// One object. Clones share what was learnt of it.
#[derive(Clone)]
pub(crate) struct Object {
    pub(super) url: Arc<str>,
    pub(super) origin: Origin,
    pub(super) options: Arc<Store>,
    pub(super) learnt: Arc<Learnt>,
    /// The query of its URL, which messages must not show.
    pub(super) secret: Option<String>,
    /// Where its bytes are kept once they were read.
    pub(super) cache: Option<Arc<Cache>>,
}

/// Whom to ask for an object.
#[derive(Clone)]
pub(super) enum Origin {
    Bucket(Kind, Arc<dyn ObjectStore>, Path),
    Http(Url, Shared),
    /// In a dataset on the hub, which is there.
    Hub(Arc<HubFile>, Url, Shared),
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
    /// Where its server redirects to.
    pub(super) landing: Arc<Landing>,
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
        let in_folder = |path: &str| match path.rsplit_once('/') {
            Some((folder, _)) => format!("{folder}/{name}"),
            None => name.to_owned(),
        };
        let origin = match &self.origin {
            Origin::Http(url, client) => {
                let mut url = url.clone();
                if let Ok(mut segments) = url.path_segments_mut() {
                    segments.pop().push(name);
                }
                Origin::Http(url, client.clone())
            }
            Origin::Hub(file, hub, client) => {
                let file = HubFile { path: in_folder(&file.path), ..HubFile::clone(file) };
                Origin::Hub(Arc::new(file), hub.clone(), client.clone())
            }
            Origin::Bucket(kind, store, path) => {
                Origin::Bucket(*kind, Arc::clone(store), key(&in_folder(path.as_ref()))?)
            }
        };
        let url = match &origin {
            Origin::Http(url, _) => url[..url::Position::AfterPath].into(),
            _ => in_folder(&self.url).into(),
        };
        Ok(Self { url, origin, learnt: Arc::default(), ..self.clone() })
    }

    /// Who answers requests for it, and by what name. Made anew where it is on an HTTP server:
    /// that is cheap, and a list may hold a million.
    pub(super) fn store(&self) -> object_store::Result<(Arc<dyn ObjectStore>, Path)> {
        let (url, client) = match &self.origin {
            Origin::Bucket(_, store, path) => return Ok((Arc::clone(store), path.clone())),
            Origin::Http(url, client) => (url.clone(), client),
            Origin::Hub(file, hub, client) => (file.resolve(hub), client),
        };
        // The whole URL is the store's root: a path would be encoded anew, and the query lost.
        let store = HttpBuilder::new()
            .with_url(url)
            .with_retry(no_retries())
            .with_http_connector(client.clone())
            .build()?;
        Ok((Arc::new(store), Path::default()))
    }

    /// What the cache knows it by: two URLs of one file that differ in their queries are two files to it.
    pub(super) fn cache_key(&self) -> String {
        let endpoint = self.options.endpoint.as_deref().unwrap_or_default();
        format!("{} {} {endpoint}", self.url, self.secret.as_deref().unwrap_or_default())
    }

    /// The options that have a token or headers, and the server that they are for.
    pub(crate) fn trusts(&self) -> Option<(&Store, String)> {
        let (Origin::Http(url, _) | Origin::Hub(_, url, _)) = &self.origin else { return None };
        has_secrets(&self.options).then(|| (&*self.options, server(url)))
    }

    /// Whether requests may demand a version. The hub passes them on to stores that know it by another one.
    pub(super) fn may_demand(&self) -> bool {
        !matches!(self.origin, Origin::Hub(..))
    }

    /// Whether it is read with credentials.
    pub(super) fn has_credentials(&self) -> bool {
        match &self.origin {
            Origin::Bucket(..) => true,
            Origin::Http(url, client) | Origin::Hub(_, url, client) => client.credentials.any_for(url),
        }
    }
}

fn has_secrets(options: &Store) -> bool {
    options.token.is_some() || !options.headers.is_empty()
}

/// The error of a token, or of headers, that more than one server would get.
pub(crate) fn several_servers(option: &'static str, first: &str, second: &str) -> Error {
    let problem = format!(
        "it is for one server, and the shards are on {first} and on {second}; give each server a Source with a Store \
         of its own, or set {TOKENS}"
    );
    Error::refused(option, HIDDEN, problem)
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

/// The stores of one list: a client for each bucket, one for all HTTP servers, and one for the hub.
pub(crate) struct Stores {
    options: Arc<Store>,
    buckets: HashMap<String, Arc<dyn ObjectStore>>,
    http: Option<Shared>,
    hub: Option<(Url, Shared)>,
    /// The server that gets the token and the headers of the options.
    trusted: Option<String>,
    cache: Option<Arc<Cache>>,
}

impl Stores {
    pub(crate) fn new(options: &Store) -> Self {
        let cache = options.shard_cache_dir.as_ref();
        let cache = cache.map(|folder| Cache::at(folder, options.shard_cache_bytes));
        let options = Arc::new(options.clone());
        Self { options, buckets: HashMap::new(), http: None, hub: None, trusted: None, cache }
    }

    /// The object at `address`; whether it exists is not asked.
    ///
    /// # Errors
    /// A store that cannot be set up, a key that it cannot have.
    pub(crate) fn object(&mut self, address: &Address) -> Result<Object> {
        let origin = match address {
            Address::Http(url) => {
                let client = match &self.http {
                    Some(client) => client.clone(),
                    None => {
                        let credentials = Credentials::web(&self.options)?;
                        self.http.insert(Shared::new(&self.options, credentials)?).clone()
                    }
                };
                self.trust(url, &client)?;
                Origin::Http(url.clone(), client)
            }
            Address::Hub(file) => {
                let (hub, client) = self.hub()?;
                self.trust(&hub, &client)?;
                Origin::Hub(Arc::new(file.clone()), hub, client)
            }
            Address::Bucket { kind, root, bucket, key: name } => {
                Origin::Bucket(*kind, self.bucket(*kind, root, bucket)?, key(name)?)
            }
        };
        let secret = match &origin {
            Origin::Http(url, _) => url.query().map(str::to_owned),
            _ => None,
        };
        let (options, cache) = (Arc::clone(&self.options), self.cache.clone());
        Ok(Object { url: address.url().into(), origin, options, learnt: Arc::default(), secret, cache })
    }

    /// Where the hub is, and the client for it.
    pub(super) fn hub(&mut self) -> Result<(Url, Shared)> {
        if let Some(hub) = &self.hub {
            return Ok(hub.clone());
        }
        let credentials = Credentials::hub(&self.options, hub::token().as_deref())?;
        let hub = (hub::endpoint()?, Shared::new(&self.options, credentials)?);
        Ok(self.hub.insert(hub).clone())
    }

    /// Refuses to show a second server what is meant for one.
    fn trust(&mut self, url: &Url, client: &Shared) -> Result<()> {
        let is_first = self.trusted.is_none();
        let server = server(url);
        let trusted = self.trusted.get_or_insert_with(|| server.clone());
        if has_secrets(&self.options) && *trusted != server {
            let option = if self.options.token.is_some() { "token" } else { "headers" };
            return Err(several_servers(option, trusted, &server));
        }
        let host = url.host_str().unwrap_or_default();
        let is_near = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        if is_first && url.scheme() == "http" && !is_near && client.credentials.any_for(url) {
            tracing::warn!(
                server,
                "its token or headers are sent without encryption; use https:// where it is known"
            );
        }
        Ok(())
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

/// Makes clients of buckets that note what answers say.
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

/// One client, and its connections, for HTTP servers.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) client: HttpClient,
    credentials: Arc<Credentials>,
    /// Names in folders of the hub that were listed; `None` where one cannot be.
    pub(super) folders: Arc<Mutex<HashMap<String, Option<Vec<String>>>>>,
}

impl Shared {
    fn new(options: &Store, credentials: Credentials) -> Result<Self> {
        // An answer may take as long as it likes while bytes keep coming. `fetch` watches over that.
        let client = Web::client(options.read_timeout.saturating_add(Duration::from_secs(1)))
            .map_err(|error| Error::io("set up an HTTP client", error))?;
        let credentials = Arc::new(credentials);
        let web = Web::new(client, Arc::clone(&credentials));
        Ok(Self { client: HttpClient::new(web), credentials, folders: Arc::default() })
    }
}

impl HttpConnector for Shared {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.client.clone())
    }
}

/// Notes what answers say.
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
            let answer = Answer::of(&request);
            let response = self.0.execute(request).await?;
            if let Some(answer) = answer {
                answer.note(&response);
            }
            Ok(response)
        })
    }
}
