//! The page at `/`, and the Markdown of its answers.

use axum::extract::Request;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::body;
use super::errors::{Api, ApiError};
use super::fields::Fields;
use super::requests::random_id;
use omr_base::error::Error;

const PAGE: &str = include_str!("page.html");
/// Maximum bytes of an answer that is converted.
const LARGEST: usize = 1 << 18;

/// Returns the routes of the page, whose settings are `config`.
pub fn routes(config: Value) -> Router {
    let routes = Router::new().route("/", get(index)).route("/config.json", get(async || Json(config)));
    routes.route("/markdown", post(markdown))
}

async fn markdown(request: Request) -> Api<Json<Value>> {
    let mut fields = Fields::new(body::json(request).await?, "")?;
    let wrong = || ApiError::field("text", "none or a longer one", format!("at most {LARGEST} bytes"));
    let text = fields.string("text")?.filter(|text| text.len() <= LARGEST).ok_or_else(wrong)?;
    fields.end()?;
    let html = tokio::task::spawn_blocking(move || html(&text)).await;
    html.map(|html| Json(json!({"html": html}))).map_err(|_| ApiError::internal(&Error::Failed("Markdown".to_owned())))
}

/// Converts an answer from Markdown. HTML in it stays text, images become links, so that the page loads nothing, and the
/// part between answer tags is marked.
fn html(text: &str) -> String {
    let mut options = markdown::Options::gfm();
    let on = &mut options.parse.constructs;
    (on.label_start_image, on.gfm_task_list_item) = (false, false);
    (on.gfm_footnote_definition, on.gfm_label_start_footnote) = (false, false);
    let of = |text: &str| markdown::to_html_with_options(text, &options).unwrap_or_default();
    let tagged = text.split_once("<answer>").and_then(|(before, rest)| Some((before, rest.split_once("</answer>")?)));
    match tagged {
        Some((before, (last, after))) => format!("{}<div class=\"final\">{}</div>{}", of(before), of(last), of(after)),
        None => of(text),
    }
}

async fn index() -> Api<Response> {
    let nonce = random_id()?;
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data: blob:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    Ok((headers, PAGE.replace("{{nonce}}", &nonce)).into_response())
}

#[cfg(test)]
mod tests {
    use super::html;

    #[test]
    fn markup_of_a_model_becomes_no_element_and_no_address_that_loads_or_runs() {
        for hostile in [
            "<script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            "![a](http://example.org/seen.png)",
            "![a][b]\n\n[b]: http://example.org/seen.png",
            "[a](javascript:alert(1))",
            "[a](JaVaScRiPt:alert(1)) [a](data:text/html,x) [a](&#106;avascript:x) <javascript:alert(1)>",
            "<a href=\"javascript:x\" onclick=\"x\">a</a>",
            "[a](http://x \"onclick=\\\"x\")",
            "- [ ] task <input autofocus onfocus=x>",
            "note[^1]\n\n[^1]: <b>x</b>",
            "<answer><img src=x></answer>",
            "```\"><script>\n</script>\n```",
            "| <svg/onload=x> |\n| - |\n| <iframe> |",
        ] {
            let html = html(hostile);
            for part in html.split('<').skip(1) {
                let (tag, _) = part.split_once('>').unwrap();
                let name = tag.trim_start_matches('/').split(' ').next().unwrap();
                let known = ["p", "a", "ul", "li", "pre", "code", "table", "thead", "tbody", "tr", "th", "td", "div"];
                assert!(known.contains(&name), "{hostile:?}: {html}");
                let address = tag.split_once("href=\"").map_or("", |(_, rest)| rest);
                assert!(
                    ["", "http", "#", "\""].iter().any(|begin| *begin == address || address.starts_with("http")),
                    "{html}"
                );
                assert!(!tag.replace("&quot;", "").contains(" on"), "{html}");
            }
        }
    }

    #[test]
    fn an_answer_between_tags_is_marked_and_the_rest_is_markdown() {
        let found = html("**So**\n<answer>5</answer>");
        assert_eq!(found, "<p><strong>So</strong></p>\n<div class=\"final\"><p>5</p></div>");
        assert_eq!(html("1 < 2 & `<b>`"), "<p>1 &lt; 2 &amp; <code>&lt;b&gt;</code></p>");
        assert_eq!(html("cut <answer>5"), "<p>cut &lt;answer&gt;5</p>");
    }
}
