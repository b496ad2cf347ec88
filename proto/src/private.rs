//! The part of a provider that may hold secrets besides its credential: tokens in custom headers, in the user, the path
//! or the query of its base URL. It travels and lies on disks sealed; proxies open it in memory.

use crate::ids::ProviderId;
use crate::pb;
use crate::seal::{SealError, Sealer};
use crate::table::Provider;
use prost::Message;

/// A path of a base URL holds names of products and versions; what is longer may be a token.
const LONGEST_NAME: usize = 15;

/// Associated data of the sealed part.
pub fn aad(id: ProviderId) -> String {
    format!("provider:{id}:private")
}

/// Seals what may be secret. The same row gives the same bytes.
pub fn seal(row: &mut Provider, sealer: &Sealer) -> Result<(), SealError> {
    if row.custom_headers.is_empty() && !may_hold_secret(&row.base_url) {
        return Ok(());
    }
    let clear = pb::ProviderPrivate {
        base_url: std::mem::take(&mut row.base_url),
        custom_headers: std::mem::take(&mut row.custom_headers),
    };
    row.private = sealer.seal_alike(&clear.encode_to_vec(), &aad(row.id))?;
    Ok(())
}

/// Puts what was sealed back in its place.
pub fn open(row: &mut Provider, sealer: &Sealer) -> Result<(), SealError> {
    if row.private.is_empty() {
        return Ok(());
    }
    let clear = sealer.open(&row.private, &aad(row.id))?;
    let clear = pb::ProviderPrivate::decode(clear.as_slice()).map_err(|_| SealError::Form)?;
    (row.base_url, row.custom_headers) = (clear.base_url, clear.custom_headers);
    Ok(())
}

/// Whether `opened` is what `came` gives once it is opened.
pub fn is_same(opened: &Provider, came: &Provider) -> bool {
    if came.private.is_empty() {
        return opened == came;
    }
    let mut closed = opened.clone();
    closed.base_url.clear();
    closed.custom_headers.clear();
    closed == *came
}

fn may_hold_secret(base_url: &str) -> bool {
    let after = base_url.split_once("://").map_or(base_url, |(_, after)| after);
    let path = after.split_once('/').map_or("", |(_, path)| path);
    after.contains(['@', '?', '#']) || path.split('/').any(|name| name.len() > LONGEST_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_addresses_may_hold_a_secret() {
        for (url, may) in [
            ("https://api.example", false),
            ("https://api.example:8443/v1", false),
            ("https://a-host-with-a-rather-long-name.example/api/coding/v3", false),
            ("https://user@api.example", true),
            ("https://user:pass@api.example/v1", true),
            ("https://api.example/v1?key=abc", true),
            ("https://api.example/v1#abc", true),
            ("https://api.example/4f1d9b7e4f1d9b7e/v1", true),
        ] {
            assert_eq!(may_hold_secret(url), may, "{url}");
        }
    }
}
