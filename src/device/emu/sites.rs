//! Call sites of synchronisation: which ones ran, which one is left out, which ones are excused.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::Location;
use std::str::FromStr;
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::device::emu::compile::Sources;
use crate::error::{Error, Result};

/// A line of a kernel or of the host's code.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Site {
    /// Its file, as `kernels/rms_norm.cu`.
    pub file: String,
    /// Its line, from 1.
    pub line: u32,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl FromStr for Site {
    type Err = Error;

    fn from_str(text: &str) -> Result<Site> {
        let parts = text.rsplit_once(':').and_then(|(file, line)| Some((file, line.parse().ok()?)));
        match parts {
            Some((file, line)) if line > 0 => Ok(Site { file: file.to_owned(), line }),
            _ => Err(Error::input("site", text, "FILE:LINE, such as kernels/rms_norm.cu:40")),
        }
    }
}

impl From<&Location<'_>> for Site {
    fn from(at: &Location) -> Site {
        Site { file: at.file().to_owned(), line: at.line() }
    }
}

/// A site that was passed, skipped or not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Passed {
    /// Where.
    pub site: Site,
    /// The call, as `sync_cta`.
    pub wrapper: String,
}

impl Passed {
    /// Why skipping it need not show: the comment `// exempt: REASON` on its line.
    pub fn exempt(&self, sources: &Sources) -> Option<String> {
        let line = |text: &str| {
            let line = text.lines().nth(self.site.line as usize - 1)?;
            Some(line.split_once("// exempt: ")?.1.trim().to_owned())
        };
        match sources.get(&self.site.file) {
            Some(text) => line(text),
            // A site of the host's code: its source is at hand where tests run.
            None => line(&std::fs::read_to_string(&self.site.file).ok()?),
        }
    }
}

/// What one driver knows of sites.
pub struct Sites {
    passed: BTreeSet<Passed>,
    skip: Option<Site>,
    print: bool,
    /// Files whose sites are not printed: sources of a test, not of the program.
    unlisted: Vec<String>,
}

impl Sites {
    /// As the environment says: `OMR_EMU_SITES=1` prints those outside `unlisted` files, `OMR_EMU_SKIP=FILE:LINE` skips
    /// one. Errors when that is no site.
    pub fn from_env(unlisted: Vec<String>) -> Result<Sites> {
        let print = std::env::var("OMR_EMU_SITES").is_ok_and(|v| v == "1");
        let skip = match std::env::var("OMR_EMU_SKIP") {
            Ok(text) if !text.is_empty() => Some(text.parse().map_err(|e: Error| e.within("OMR_EMU_SKIP"))?),
            _ => None,
        };
        Ok(Sites { passed: BTreeSet::new(), skip, print, unlisted })
    }

    /// The site left out.
    pub fn skip(&self) -> Option<&Site> {
        self.skip.as_ref()
    }

    /// Leaves out another site, or none.
    pub fn set_skip(&mut self, site: Option<Site>) {
        self.skip = site;
    }

    /// Notes a site of the host; true when it is the one left out.
    pub fn host(&mut self, at: &Location, wrapper: &str, sources: &Sources) -> bool {
        let site = Site::from(at);
        let skipped = self.skip.as_ref() == Some(&site);
        self.note([Passed { site, wrapper: wrapper.to_owned() }], sources);
        skipped
    }

    /// Notes sites, and prints each once a process.
    pub fn note(&mut self, passed: impl IntoIterator<Item = Passed>, sources: &Sources) {
        static PRINTED: LazyLock<Mutex<BTreeSet<Passed>>> = LazyLock::new(Mutex::default);
        for passed in passed {
            if self.passed.contains(&passed) {
                continue;
            }
            let listed = self.print && !self.unlisted.contains(&passed.site.file);
            let first = listed && PRINTED.lock().unwrap_or_else(PoisonError::into_inner).insert(passed.clone());
            if first {
                let reason = passed.exempt(sources).map(|r| format!(" exempt: {r}")).unwrap_or_default();
                // Tests on one thread leave their name on an open line.
                print!("\nsite {} {}{reason}\n", passed.site, passed.wrapper);
            }
            self.passed.insert(passed);
        }
    }

    /// All sites passed so far, in order of file and line.
    pub fn passed(&self) -> impl Iterator<Item = &Passed> {
        self.passed.iter()
    }
}
