//! Options, set one after the other.

use crate::config::Config;

/// A [`Config`] in the making, with `P`: what belongs to it and is no plain data, such as models. Its setters are those of
/// the fields of the groups.
#[must_use]
pub struct Builder<P> {
    pub(crate) config: Config,
    pub(crate) parts: P,
}

impl<P> Builder<P> {
    /// The options so far.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How remote shards are read, of every source.
    pub fn stores(mut self, stores: crate::shard::Store) -> Self {
        for source in &mut self.config.sources {
            source.store = stores.clone();
        }
        self
    }
}
