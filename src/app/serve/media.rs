//! Loads the images of requests. `data:` URLs are always read; other URLs only as far as the server's flags allow.
//!
//! A remote address is resolved once and checked, and the connection goes to the checked address. Private, loopback
//! and link-local addresses are refused unless the flag names the address itself. Redirects are checked the same way.

use std::io::Cursor;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;

use super::errors::{Api, ApiError};
use omr_base::client::web;
use omr_base::error::Error;
use omr_data::image::{self, ImageInput, Limits, Processor};
use omr_data::rows::files::folder::decode_data_url;

/// Maximum number of images of a request.
pub const MAX_PICTURES: usize = 64;
/// Maximum bytes of an image file.
const LARGEST_FILE: usize = 32 << 20;
/// Maximum time to load a remote image, with redirects.
const PATIENCE: Duration = Duration::from_secs(10);
const MAX_REDIRECTS: usize = 3;

/// Sources from which images may be loaded besides the request itself.
#[derive(Clone, Debug, Default)]
pub struct MediaRules {
    domains: Vec<String>,
    folder: Option<PathBuf>,
}

impl MediaRules {
    /// Allows http and https URLs of `domains`, and `file://` URLs below `folder`.
    pub fn new(domains: &[String], folder: Option<PathBuf>) -> omr_base::error::Result<MediaRules> {
        let real = |path: PathBuf| path.canonicalize().map_err(Error::io(&path));
        let domains = domains.iter().map(|domain| domain.trim().to_ascii_lowercase());
        Ok(MediaRules { domains: domains.collect(), folder: folder.map(real).transpose()? })
    }

    /// Replaces `url` by a `data:` URL with the content of the image. `param` names the field in errors.
    pub async fn inline(&self, url: &mut String, param: &str) -> Api<()> {
        if url.starts_with("data:") {
            return Ok(());
        }
        let parsed = Url::parse(url).map_err(|_| wrong(param, "text that is not a URL"))?;
        let bytes = match parsed.scheme() {
            "http" | "https" => match tokio::time::timeout(PATIENCE, self.fetch(parsed, param)).await {
                Ok(bytes) => bytes?,
                Err(_) => return Err(wrong(param, "an image that was not received in time")),
            },
            "file" => self.read(&parsed, param).await?,
            _ => return Err(wrong(param, "a URL of another scheme")),
        };
        *url = format!("data:;base64,{}", STANDARD.encode(bytes));
        Ok(())
    }

    async fn read(&self, url: &Url, param: &str) -> Api<Vec<u8>> {
        let refused = || wrong(param, "a file outside of --allowed-local-media-path");
        let folder = self.folder.clone().ok_or_else(refused)?;
        let path = url.to_file_path().map_err(|()| refused())?;
        let read = move || {
            let path = path.canonicalize().ok().filter(|path| path.starts_with(&folder))?;
            let is_small = path.metadata().is_ok_and(|data| data.is_file() && data.len() <= LARGEST_FILE as u64);
            if is_small { std::fs::read(path).ok() } else { None }
        };
        tokio::task::spawn_blocking(read).await.ok().flatten().ok_or_else(refused)
    }

    async fn fetch(&self, mut url: Url, param: &str) -> Api<Vec<u8>> {
        for _ in 0..=MAX_REDIRECTS {
            let addresses = self.checked(&url, param).await?;
            let reply = get(&url, &addresses).await.map_err(|error| {
                tracing::debug!("{param}: {error}");
                wrong(param, "an image that could not be loaded")
            })?;
            if reply.status().is_redirection() {
                let to = reply.headers().get("location").and_then(|to| url.join(to.to_str().ok()?).ok());
                url = to.ok_or_else(|| wrong(param, "a redirect without a location"))?;
                continue;
            }
            if !reply.status().is_success() {
                return Err(wrong(param, &format!("status {} instead of an image", reply.status().as_u16())));
            }
            let cut = |_| wrong(param, "an image whose transfer broke off");
            let bytes = web::body(reply, LARGEST_FILE).await.map_err(cut)?;
            return if bytes.len() > LARGEST_FILE { Err(too_large(param)) } else { Ok(bytes) };
        }
        Err(wrong(param, "too many redirects"))
    }

    /// Returns the addresses of a URL whose domain is allowed. Errors unless all of them are public or allowed.
    async fn checked(&self, url: &Url, param: &str) -> Api<Vec<SocketAddr>> {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
        let is_web = ["http", "https"].contains(&url.scheme());
        let port = url.port_or_known_default().filter(|_| is_web);
        let Some(port) = port.filter(|_| self.domains.contains(&host)) else {
            return Err(wrong(param, "a URL whose domain is not listed in --allowed-media-domains"));
        };
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let unknown = || wrong(param, "a domain without an address");
        let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await.map_err(|_| unknown())?.collect();
        if addresses.is_empty() {
            return Err(unknown());
        }
        match addresses.iter().all(|address| is_public(address.ip())) {
            true => Ok(addresses),
            false => Err(wrong(param, "a domain with an address that is not public")),
        }
    }
}

/// Sends one request to the checked addresses, without following redirects.
async fn get(url: &Url, addresses: &[SocketAddr]) -> std::result::Result<reqwest::Response, String> {
    let host = url.host_str().unwrap_or_default();
    let client = web::client(url.scheme() == "http", |client| client.no_proxy().resolve_to_addrs(host, addresses))?;
    client.get(url.clone()).send().await.map_err(|e| e.to_string())
}

/// Returns true for an address of the public internet.
fn is_public(address: IpAddr) -> bool {
    let address = address.to_canonical();
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            let is_shared = a == 100 && (64..128).contains(&b);
            let is_reserved = a == 0 || a >= 240 || (a == 198 && (18..20).contains(&b)) || (a, b, c) == (192, 0, 0);
            let is_internal = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_broadcast();
            !(is_internal || is_shared || is_reserved || v4.is_multicast() || v4.is_documentation())
        }
        IpAddr::V6(v6) => {
            let [first, second, ..] = v6.segments();
            // 64:ff9b::/96 and 2002::/16 contain IPv4 addresses, which may be private.
            let is_translated = (first, second) == (0x64, 0xff9b) || first == 0x2002;
            let is_internal = v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unique_local();
            !(is_internal || is_translated || v6.is_unspecified() || v6.is_multicast() || first == 0)
        }
    }
}

/// Decodes and resizes images, given as `data:` URLs with the names of their fields. All images of a request
/// together may have as many pixels as one image of a data set. A text model has no `processor`.
pub fn images(urls: &[(String, String)], processor: Option<&Processor>) -> Api<Vec<Arc<ImageInput>>> {
    let Some((param, _)) = urls.first() else { return Ok(Vec::new()) };
    let processor =
        processor.ok_or_else(|| ApiError::field(param, "an image", "text only: the model has no vision tower"))?;
    let mut limits = Limits::default();
    let one = |(param, url): &(String, String)| {
        let unreadable = |error: Error| {
            tracing::debug!("{error}");
            wrong(param, "data that is not an intact image within the limits")
        };
        let rest = url.strip_prefix("data:").ok_or_else(|| wrong(param, "a URL of another scheme"))?;
        let bytes = decode_data_url(rest, param).map_err(|error| ApiError::refused(param, error))?;
        if bytes.len() > LARGEST_FILE {
            return Err(too_large(param));
        }
        let header =
            image::header(Cursor::new(&bytes), &limits, param).map_err(|refused| unreadable(refused.into()))?;
        let input = image::decode_then(&bytes, &limits, processor.decoding(), param, |rgb| processor.image(&rgb))
            .map_err(unreadable)?;
        limits.max_pixels -= header.size.into_iter().map(u64::from).product::<u64>();
        input.map(Arc::new).map_err(|error| ApiError::refused(param, error))
    };
    urls.iter().map(one).collect()
}

fn too_large(param: &str) -> ApiError {
    wrong(param, &format!("an image of more than {LARGEST_FILE} bytes"))
}

fn wrong(param: &str, found: &str) -> ApiError {
    ApiError::field(param, found, "an image as a data: URL, or a URL that the server's flags allow")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_addresses_are_not_public() {
        let internal = [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "198.18.0.1",
            "192.0.0.8",
            "240.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "ff02::1",
        ];
        for address in internal {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
