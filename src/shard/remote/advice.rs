//! What to do where a store says that it must not be read.

use crate::shard::remote::address::Kind;
use crate::shard::remote::answer::Said;
use crate::shard::remote::store::{Object, Origin};
use crate::shard::remote::trust::{TOKENS, server};

/// What to do about a status of 401 or 403.
pub(super) fn denied(said: &Said, object: &Object) -> String {
    let status = said.status;
    match &object.origin {
        Origin::Bucket(Kind::S3, ..) => "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, of credentials \
             that expire, AWS_SESSION_TOKEN; they need s3:GetObject, and s3:ListBucket for a folder; for a public \
             bucket set AWS_SKIP_SIGNATURE=true"
            .into(),
        Origin::Bucket(Kind::Gcs, ..) => "check GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT, the file of an \
             account that has the role Storage Object Viewer; for a public bucket set GOOGLE_SKIP_SIGNATURE=true"
            .into(),
        Origin::Bucket(Kind::Azure, ..) => "check AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or \
             AZURE_STORAGE_SAS_KEY, which expires, or the account's role Storage Blob Data Reader; for a public container \
             set AZURE_SKIP_SIGNATURE=true"
            .into(),
        Origin::Hub(file, hub, _) if object.has_credentials() => {
            let page = format!("{}/datasets/{}", server(hub), file.repo);
            format!(
                "the token that was sent (the option token, HF_TOKEN, or that of `hf auth login`) may not read it: \
                 check its rights, and accept the conditions at {page} where the dataset has some"
            )
        }
        Origin::Hub(file, ..) => format!(
            "no token was sent: check the name {}, or, for a gated or private dataset, set HF_TOKEN, run `hf auth login`, \
             or give the option token",
            file.repo
        ),
        Origin::Http(..) if object.secret.is_some() => {
            "the signature in the query of the URL may have expired, or be of another file: ask for a new URL".into()
        }
        Origin::Http(..) if let Some(other) = &said.from => format!(
            "the request was redirected to {other}, which got no token and no headers, since they are meant for the \
             server of the URL: give the URL there, with a token for it"
        ),
        Origin::Http(..) if object.has_credentials() => {
            let what = if status == 401 { "does not accept" } else { "does not let it be read with" };
            format!("the server {what} the token or headers that were sent: check them, or ask for access")
        }
        Origin::Http(url, _) => format!(
            "no credentials were sent: give the options token or headers of the source's Store, or set \
             {TOKENS}=TOKEN@{}",
            server(url).split_once("://").map_or("", |(_, host)| host)
        ),
    }
}

/// What to do where no credentials were found.
pub(super) fn without_credentials(object: &Object) -> String {
    match &object.origin {
        Origin::Bucket(Kind::Gcs, ..) => "set GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT to the file of an \
             account, or, for a public bucket, GOOGLE_SKIP_SIGNATURE=true"
            .into(),
        Origin::Bucket(Kind::Azure, ..) => "set AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or \
             AZURE_STORAGE_SAS_KEY, or, for a public container, AZURE_SKIP_SIGNATURE=true"
            .into(),
        _ => "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or, for a public bucket, AWS_SKIP_SIGNATURE=true".into(),
    }
}
