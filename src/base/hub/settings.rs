//! Connection settings of the hub, from the environment variables of the Hugging Face libraries.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::{files, secrets};

/// Default address of the hub.
const ENDPOINT: &str = "https://huggingface.co";

/// Settings for the connection to the hub.
#[derive(Clone)]
pub struct Settings {
    /// `HF_ENDPOINT`: address of the hub or of a mirror.
    pub endpoint: reqwest::Url,
    /// `HF_TOKEN`, or the content of the file `token` in `HF_HOME`.
    pub token: Option<String>,
    /// `HF_HUB_OFFLINE`: true if the hub must not be contacted.
    pub offline: bool,
}

impl Settings {
    /// Reads the settings from an environment. Returns an error if the endpoint is not a valid address.
    pub fn of(env: &dyn Fn(&str) -> Option<String>) -> Result<Settings> {
        let given = |name: &str| env(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let endpoint = given("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let endpoint = reqwest::Url::parse(&format!("{}/", endpoint.trim_end_matches('/')))
            .ok()
            .filter(|url| ["http", "https"].contains(&url.scheme()) && url.host_str().is_some())
            .ok_or_else(|| Error::input("HF_ENDPOINT", &endpoint, "an http or https address"))?;
        let home = home(env);
        let file = given("HF_TOKEN_PATH").map(PathBuf::from).or(home.as_ref().map(|home| home.join("token")));
        let token = given("HF_TOKEN").or_else(|| {
            let text = files::read_to_string(file?).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        });
        token.iter().for_each(|token: &String| secrets::keep(token));
        let offline =
            given("HF_HUB_OFFLINE").is_some_and(|on| ["1", "on", "yes", "true"].contains(&&*on.to_lowercase()));
        Ok(Settings { endpoint, token, offline })
    }
}

/// Returns the cache of the Hugging Face libraries: `HF_HUB_CACHE`, or the folder `hub` in `HF_HOME`.
pub(super) fn cache(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let given = env("HF_HUB_CACHE").filter(|text| !text.is_empty()).map(PathBuf::from);
    given.or_else(|| Some(home(env)?.join("hub")))
}

/// Returns `HF_HOME`, or the default of the Hugging Face libraries.
fn home(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let given = |name: &str| env(name).filter(|text| !text.is_empty()).map(PathBuf::from);
    given("HF_HOME").or_else(|| {
        let cache = given("XDG_CACHE_HOME").or_else(|| Some(given("HOME")?.join(".cache")))?;
        Some(cache.join("huggingface"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_read_as_the_hugging_face_libraries_do() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "hf_file\n").unwrap();
        let home = dir.path().display().to_string();
        let of = |pairs: &[(&str, &str)]| {
            Settings::of(&|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        let plain = of(&[("HF_HOME", &home)]).unwrap();
        assert_eq!((plain.endpoint.as_str(), plain.offline), ("https://huggingface.co/", false));
        assert_eq!(plain.token.as_deref(), Some("hf_file"));
        let set = of(&[
            ("HF_HOME", &home),
            ("HF_TOKEN", "hf_x"),
            ("HF_HUB_OFFLINE", "TRUE"),
            ("HF_ENDPOINT", "http://m/hf/"),
        ]);
        let set = set.unwrap();
        assert_eq!((set.endpoint.as_str(), set.token.as_deref(), set.offline), ("http://m/hf/", Some("hf_x"), true));
        let cache_of = |name, path: &str| cache(&|asked| (asked == name).then(|| path.to_owned()));
        assert_eq!(cache_of("HF_HOME", "/h"), Some(PathBuf::from("/h/hub")));
        assert_eq!(cache_of("HF_HUB_CACHE", "/c"), Some(PathBuf::from("/c")));
        assert_eq!(cache_of("HOME", "/u"), Some(PathBuf::from("/u/.cache/huggingface/hub")));
        assert!(of(&[("HF_ENDPOINT", "mirror.example")]).is_err_and(|e| e.to_string().contains("HF_ENDPOINT")));
    }
}
