//! What all pages have alike: one HTML file with its style and scripts inside, in light and dark, without a network.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

const STYLE: &str = include_str!("page.css");

/// What a page may do, whatever a model wrote into it: load nothing, show pictures that stand in it, and run the scripts
/// it was made with, by their hashes. Styles stay inline, since bars and whiskers are placed by `style` attributes.
fn policy(script: &str) -> String {
    let mut hashes = String::new();
    for rest in script.split("<script>").skip(1) {
        let text = rest.split("</script>").next().unwrap_or_default();
        hashes += &format!(" 'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
    }
    let scripts = if hashes.is_empty() { " 'none'" } else { &hashes };
    format!("default-src 'none'; script-src{scripts}; style-src 'unsafe-inline'; img-src data:")
}

/// A whole page around `body`; `style` comes after the style of all pages, `script` at the end of the body.
pub fn frame(title: &str, style: &str, body: &str, script: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>{title}</title>\n<style>\n{STYLE}{style}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n\
         {script}\n</body>\n</html>\n",
        policy = policy(script),
        title = escape(title),
    )
}

/// Data as a script element that runs nothing; `attributes` stand in its tag. Nothing a model wrote can close it: there is
/// no `<` in it.
pub fn data(attributes: &str, data: &impl Serialize) -> Result<String> {
    let json = serde_json::to_string(data).map_err(|error| Error::Failed(format!("a page's data: {error}")))?;
    Ok(format!("<script type=\"application/json\"{attributes}>{}</script>", json.replace('<', "\\u003c")))
}

/// Text as it may stand in markup and attributes.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
