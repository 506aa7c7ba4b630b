//! Keys and passwords of this process. They may be sent to servers, but must never be shown or written to files.

use std::borrow::Cow;
use std::sync::{LazyLock, PoisonError, RwLock};

use regex::Regex;

/// Text that replaces a secret in output.
pub const HIDDEN: &str = "***";

/// Minimum length of a secret to hide. Shorter texts occur in too many unrelated lines.
const SHORTEST: usize = 6;

static KEPT: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// Registers `secret`, so that [`redacted`] hides it from now on.
pub fn keep(secret: &str) {
    let mut kept = KEPT.write().unwrap_or_else(PoisonError::into_inner);
    if secret.len() >= SHORTEST && !kept.iter().any(|known| known == secret) {
        kept.push(secret.to_owned());
    }
}

/// Returns `text` without registered secrets, and without user names and passwords in URLs.
pub fn redacted(text: &str) -> Cow<'_, str> {
    let kept = KEPT.read().unwrap_or_else(PoisonError::into_inner);
    let mut found = kept.iter().filter(|secret| text.contains(secret.as_str())).peekable();
    match found.peek() {
        None => without_userinfo(text),
        Some(_) => {
            let hidden = found.fold(text.to_owned(), |text, secret| text.replace(secret, HIDDEN));
            without_userinfo(&hidden).into_owned().into()
        }
    }
}

/// Replaces each `http://name:password@host` in `text` by `http://host`.
pub fn without_userinfo(text: &str) -> Cow<'_, str> {
    /// The part of a URL from `://` to the last `@` before its path.
    static USERINFO: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r##"://[^\s\p{Cc}/?#"'`<>()\[\]{},]*@"##).expect("a fixed pattern"));
    USERINFO.replace_all(text, "://")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_userinfo_are_hidden_and_nothing_else() {
        keep("sk-of-this-test");
        keep("abc");
        assert_eq!(redacted("abc: key sk-of-this-test, sk-of-this-test"), "abc: key ***, ***");
        let text = "at http://user:p%40ss@host:8000/v1 (https://me@x?y=a@b), mail a@b.c, http://h/v1@2";
        assert_eq!(redacted(text), "at http://host:8000/v1 (https://x?y=a@b), mail a@b.c, http://h/v1@2");
        assert!(matches!(redacted("http://host/v1"), Cow::Borrowed(_)));
    }
}
