//! Common parts of all HTML pages. A page is one file that contains its styles and scripts, needs no network and has a
//! light and a dark theme. Pages are templates that extend `page.html`, and all values printed by templates are
//! escaped.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minijinja::{Environment, UndefinedBehavior, Value, context};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Returns an environment with `page.html`, its style and the templates `own`, each given by name and text. Values in
/// templates whose names end in `.html` are escaped.
pub fn templates<'a>(own: &[(&'a str, &'a str)]) -> Result<Environment<'a>> {
    let mut templates = Environment::new();
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    let common = [("page.html", include_str!("page.html")), ("page.css", include_str!("page.css"))];
    for (name, text) in common.iter().chain(own) {
        templates.add_template(name, text).map_err(|error| failed(name, error))?;
    }
    Ok(templates)
}

/// Scripts of a page.
#[derive(Clone, Copy, Default)]
pub struct Scripts<'a> {
    /// Texts of the scripts.
    pub texts: &'a [&'a str],
    /// True if the scripts may request a new version of the page from its server.
    pub is_live: bool,
}

/// Renders the template `name`, which extends `page.html`. `context` contains its `title`. The page contains `scripts`
/// at its end.
pub fn render(templates: &Environment, name: &str, scripts: Scripts, context: impl Serialize) -> Result<String> {
    let policy = policy(scripts);
    let context = context! { policy, scripts => scripts.texts, ..Value::from_serialize(context) };
    templates.get_template(name).and_then(|page| page.render(context)).map_err(|error| failed(name, error))
}

fn failed(name: &str, error: minijinja::Error) -> Error {
    Error::Failed(format!("the page {name}: {error:#}"))
}

/// Returns the content security policy of a page. Whatever text a model wrote into it, the page may only show embedded
/// images and run the scripts whose hashes are listed here. It loads nothing, except that a live page loads its own new
/// version. Styles stay inline, because bars and whiskers are placed by `style` attributes.
fn policy(Scripts { texts: scripts, is_live }: Scripts) -> String {
    let hash = |script: &&str| format!(" 'sha256-{}'", STANDARD.encode(Sha256::digest(script)));
    let hashes: String = scripts.iter().map(hash).collect();
    let scripts = if hashes.is_empty() { " 'none'" } else { &hashes };
    let connect = if is_live { "; connect-src 'self'" } else { "" };
    format!("default-src 'none'; script-src{scripts}; style-src 'unsafe-inline'; img-src data:{connect}")
}

/// Returns data as JSON for a script element that is not executed. Text of a model cannot close the element, because
/// every `<` is escaped.
pub fn data(data: &impl Serialize) -> Result<String> {
    let json = serde_json::to_string(data).map_err(|error| Error::Failed(format!("a page's data: {error}")))?;
    Ok(json.replace('<', "\\u003c"))
}
