//! The patterns that say which shards a loader reads, in the types that they come in.

/// One pattern or several.
pub trait IntoUrls<S> {
    /// The patterns as owned strings.
    fn into_urls(self) -> Vec<String>;
}

impl IntoUrls<String> for &str {
    fn into_urls(self) -> Vec<String> {
        vec![self.to_string()]
    }
}

impl IntoUrls<String> for String {
    fn into_urls(self) -> Vec<String> {
        vec![self]
    }
}

impl<S: Into<String>> IntoUrls<S> for Vec<S> {
    fn into_urls(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

impl IntoUrls<&'static str> for &[&str] {
    fn into_urls(self) -> Vec<String> {
        self.iter().map(|s| (*s).to_string()).collect()
    }
}

impl IntoUrls<String> for &[String] {
    fn into_urls(self) -> Vec<String> {
        self.to_vec()
    }
}
