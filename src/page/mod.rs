//! What all pages have alike: one HTML file with its style and scripts inside, in light and dark, without a network.
//! Pages are templates that extend `page.html`; what a template prints is escaped.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minijinja::{Environment, UndefinedBehavior, Value, context};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Returns an environment with `page.html`, its style and these templates, given by name and text. Names that end in
/// `.html` are escaped.
pub fn templates<'a>(own: &[(&'a str, &'a str)]) -> Result<Environment<'a>> {
    let mut templates = Environment::new();
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    let common = [("page.html", include_str!("page.html")), ("page.css", include_str!("page.css"))];
    for (name, text) in common.iter().chain(own) {
        templates.add_template(name, text).map_err(|error| failed(name, error))?;
    }
    Ok(templates)
}

/// Renders the template `name`, which extends `page.html`. `context` has its `title`; `scripts` stand at its end.
pub fn render(templates: &Environment, name: &str, scripts: &[&str], context: impl Serialize) -> Result<String> {
    let context = context! { policy => policy(scripts), scripts, ..Value::from_serialize(context) };
    templates.get_template(name).and_then(|page| page.render(context)).map_err(|error| failed(name, error))
}

fn failed(name: &str, error: minijinja::Error) -> Error {
    Error::Failed(format!("the page {name}: {error:#}"))
}

/// What a page may do, whatever a model wrote into it: load nothing, show pictures that stand in it, and run the scripts
/// it was made with, by their hashes. Styles stay inline, since bars and whiskers are placed by `style` attributes.
fn policy(scripts: &[&str]) -> String {
    let hash = |script: &&str| format!(" 'sha256-{}'", STANDARD.encode(Sha256::digest(script)));
    let hashes: String = scripts.iter().map(hash).collect();
    let scripts = if hashes.is_empty() { " 'none'" } else { &hashes };
    format!("default-src 'none'; script-src{scripts}; style-src 'unsafe-inline'; img-src data:")
}

/// Returns data as JSON for a script element that runs nothing. Nothing a model wrote can close the element: the JSON has
/// no `<`.
pub fn data(data: &impl Serialize) -> Result<String> {
    let json = serde_json::to_string(data).map_err(|error| Error::Failed(format!("a page's data: {error}")))?;
    Ok(json.replace('<', "\\u003c"))
}
