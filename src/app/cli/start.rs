//! Records each start of a run in `starts.jsonl` of its folder: when, where and how it was started.

use std::io::Write;
use std::path::Path;

use jiff::Timestamp;
use serde_json::json;

use omr_base::error::{Error, Result};
use omr_base::secrets;
use omr_runtime::machine;

/// Name of the file in the run directory.
pub const FILE: &str = "starts.jsonl";

/// Appends a line about this process.
pub fn record(dir: &Path) -> Result<()> {
    let path = dir.join(FILE);
    let line = json!({
        "time": Timestamp::now().round(jiff::Unit::Second).unwrap_or_default().to_string(),
        "host": rustix::system::uname().nodename().to_string_lossy(),
        "command": secrets::redacted(&command(std::env::args())),
        "directory": std::env::current_dir().unwrap_or_default().display().to_string(),
        "commit": machine::commit(Path::new(".")),
        "version": env!("CARGO_PKG_VERSION"),
    });
    let mut file = std::fs::File::options().create(true).append(true).open(&path).map_err(Error::io(&path))?;
    file.write_all(format!("{line}\n").as_bytes()).map_err(Error::io(&path))
}

/// Returns a command line of these words that can be pasted into a shell.
pub fn command(args: impl Iterator<Item = String>) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:=,@%+".contains(c);
    let quoted = |arg: String| match !arg.is_empty() && arg.chars().all(is_plain) {
        true => arg,
        false => format!("'{}'", arg.replace('\'', r"'\''")),
    };
    args.map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_pasted() {
        let args = ["omr", "sft", "a b.yaml", "datasets=[{path: it's}]", "seed=7", ""].map(str::to_owned);
        assert_eq!(command(args.into_iter()), r"omr sft 'a b.yaml' 'datasets=[{path: it'\''s}]' seed=7 ''");
    }
}
