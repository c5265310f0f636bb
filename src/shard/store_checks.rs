//! Whether the options of stores fit the shards that were listed.

use crate::error::{Error, Result};
use crate::options::HIDDEN;
use crate::shard::location::Location;
use crate::shard::remote::several_servers;
use crate::shard::{Shard, Store};

/// Refuses what says how a store is asked where neither a shard nor the `ledger` is in such a store.
pub(crate) fn check_stores(stores: &Store, shards: &[Shard], ledger: Option<&str>) -> Result<()> {
    let is_any = |schemes: &[&str]| {
        let mut places = shards.iter().map(|shard| &*shard.url).chain(ledger);
        places.any(|place| schemes.iter().any(|scheme| place.starts_with(scheme)))
    };
    if let Some(endpoint) = &stores.endpoint
        && !is_any(&["s3://", "s3a://"])
    {
        let accepted = "without s3:// shards, whose server it is; others name theirs in their URL";
        return Err(Error::unused("endpoint", endpoint, accepted));
    }
    let given = [("token", stores.token.is_some()), ("headers", !stores.headers.is_empty())];
    if let Some((option, _)) = given.into_iter().find(|(_, is_given)| *is_given)
        && !is_any(&["http://", "https://", "hf://"])
    {
        let accepted = "without https:// or hf:// shards; credentials of buckets come from the environment";
        return Err(Error::unused(option, HIDDEN, accepted));
    }
    if let Some(folder) = &stores.shard_cache_dir
        && shards.iter().all(Shard::is_local)
    {
        return Err(Error::unused("shard_cache_dir", folder.display(), "without remote shards"));
    }
    Ok(())
}

/// Refuses a token, or headers, that the options of several sources would give to several servers.
pub(crate) fn refuse_shared_secrets(shards: &[Shard]) -> Result<()> {
    let mut meant: Vec<(&Store, String)> = vec![];
    for shard in shards {
        let Location::Remote(object) = &shard.location else { continue };
        let Some((options, server)) = object.trusts() else { continue };
        match meant.iter().find(|(other, _)| other.token == options.token && other.headers == options.headers)
        {
            Some((_, first)) if *first == server => {}
            Some((_, first)) => {
                let option = if options.token.is_some() { "token" } else { "headers" };
                return Err(several_servers(option, first, &server));
            }
            None => meant.push((options, server)),
        }
    }
    Ok(())
}
