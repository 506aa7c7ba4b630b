//! Keys and passwords of this process. They may be sent to servers, but must never be shown or written to files.

use std::borrow::Cow;
use std::sync::{LazyLock, PoisonError, RwLock};

use regex::{Captures, Regex};

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

/// Returns `text` without registered secrets, and without what [`without_credentials`] hides.
pub fn redacted(text: &str) -> Cow<'_, str> {
    let kept = KEPT.read().unwrap_or_else(PoisonError::into_inner);
    let mut found = kept.iter().filter(|secret| text.contains(secret.as_str())).peekable();
    match found.peek() {
        None => without_credentials(text),
        Some(_) => {
            let hidden = found.fold(text.to_owned(), |text, secret| text.replace(secret, HIDDEN));
            without_credentials(&hidden).into_owned().into()
        }
    }
}

/// Returns `text` without the user name, the password and the query of each URL, and without keys of known forms.
pub fn without_credentials(text: &str) -> Cow<'_, str> {
    /// A URL that has a part from `://` to the last `@` before its path, or a part after `?`.
    static URL: LazyLock<Regex> = LazyLock::new(|| {
        let (of_url, ends) = (r##"[^\s\p{Cc}?#"'`<>()\[\]{},"##, r##"[^\s\p{Cc}"'`<>()\[\]{},]+"##);
        Regex::new(&format!(r"://({of_url}/]*@)?({of_url}]*)(\?{ends})?")).expect("a fixed pattern")
    });
    let hide = |found: &Captures<'_>| format!("://{}{}", &found[2], found.get(3).map_or("", |_| "?***"));
    match URL.find_iter(text).any(|found| found.as_str().contains(['@', '?'])) {
        true => without_keys(&URL.replace_all(text, hide)).into_owned().into(),
        false => without_keys(text),
    }
}

/// Returns `text` without keys in the forms of well-known services.
pub fn without_keys(text: &str) -> Cow<'_, str> {
    static KEYS: LazyLock<Regex> = LazyLock::new(|| {
        let forms = r"hf_[A-Za-z0-9]{20,}|sk-[\w-]{20,}|gh[opsu]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abp]-[\w-]{10,}";
        Regex::new(&format!(r"\b(?:{forms}|AKIA[A-Z0-9]{{16}}|AIza[\w-]{{30,}})")).expect("a fixed pattern")
    });
    KEYS.replace_all(text, HIDDEN)
}

/// True if the setting or variable `name`, which may be of another system, contains a secret.
pub fn is_named(name: &str) -> bool {
    static NAMES: LazyLock<[Regex; 3]> = LazyLock::new(|| {
        let words = "token|key|auth|authorization|credentials?|pass|passwd|passphrase|bearer|cookie";
        let of_text =
            "pad|eos|bos|unk|sep|cls|mask|image|video|audio|special|prompt|response|reward_fn|question|answer";
        [
            // As in `apiKey`.
            "([a-z0-9])([A-Z])".to_owned(),
            format!(r"(^|[._-])({words})($|\.)|api_?key|(access|auth|hub|hf)_?token|password|secret"),
            format!("({of_text})_(token|key)$"),
        ]
        .map(|text| Regex::new(&text).expect("a fixed pattern"))
    });
    let [capitals, secrets, of_text] = &*NAMES;
    let name = capitals.replace_all(name, "${1}_${2}").to_lowercase();
    secrets.is_match(&name) && !of_text.is_match(&name)
}

/// Registers the values of settings and variables in `text`, a script or a config, whose names say that they are secrets.
/// Short words are left out, because hiding them would change other settings.
pub fn keep_named(text: &str) {
    /// `NAME=VALUE`, `NAME: VALUE` or `--NAME VALUE`.
    static SETTING: LazyLock<Regex> = LazyLock::new(|| {
        let names = r#"(?:([A-Za-z_][\w.-]*)["']?[ \t]*[=:][ \t]*|--([\w.-]+)[ \t]+)"#;
        Regex::new(&format!(r#"{names}["']?([^\s"'`,;#$\\{{}}()]+)"#)).expect("a fixed pattern")
    });
    let is_word = |value: &str| value.len() < 16 && value.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    for found in SETTING.captures_iter(text) {
        let name = found.get(1).or(found.get(2)).map_or("", |name| name.as_str());
        if is_named(name) && !is_word(&found[3]) {
            keep(&found[3]);
        }
    }
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
        assert_eq!(redacted(text), "at http://host:8000/v1 (https://x?***), mail a@b.c, http://h/v1@2");
        assert_eq!(redacted("base_url=http://h/v1?api_key=SECRET&x=1 next"), "base_url=http://h/v1?*** next");
        assert!(matches!(redacted("http://host/v1"), Cow::Borrowed(_)));
        let key = format!("hf_{}", "aB3".repeat(11));
        assert_eq!(redacted(&format!("[{key}, sk-{key}] hf_transfer sk-learn")), "[***, ***] hf_transfer sk-learn");
    }

    #[test]
    fn names_of_secrets_are_known_and_tokens_of_a_text_are_none() {
        let secret =
            ["token", "trainer.wandb_key", "reward_model.key", "judge.auth", "HF_TOKEN", "apiKey", "db.password"];
        secret.iter().for_each(|name| assert!(is_named(name), "{name}"));
        let others = ["max_tokens", "pad_token", "data.prompt_key", "data.reward_fn_key", "token_ids", "SSH_AUTH_SOCK"];
        others.iter().for_each(|name| assert!(!is_named(name), "{name}"));
    }

    #[test]
    fn the_value_of_a_secret_variable_is_hidden_wherever_it_is_used() {
        keep_named(
            "export MY_TOKEN=Abc12345\npython train.py --wandb_key Key98765 {HF_TOKEN: 'Inner123'}\nsort_key: images\n",
        );
        assert_eq!(redacted("run-Abc12345 Key98765 Inner123 images"), "run-*** *** *** images");
    }
}
