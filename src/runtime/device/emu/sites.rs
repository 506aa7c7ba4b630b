//! Call sites of synchronisation: the ones that ran, the one to skip, and the ones that are exempt from tests.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::Location;
use std::str::FromStr;
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::device::emu::compile::Sources;
use omr_base::error::{Error, Result};

/// A line of a kernel or of host code.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Site {
    /// Path of the file, for example `kernels/rms_norm.cu`.
    pub file: String,
    /// Line number, starting at 1.
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
        // The compiler names the files of a crate by the path from its manifest to its root.
        Site { file: at.file().replace("/runtime/../", "/"), line: at.line() }
    }
}

/// A site that was passed, whether or not it was skipped.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Passed {
    /// Position of the call.
    pub site: Site,
    /// Name of the call, for example `sync_cta`.
    pub wrapper: String,
}

impl Passed {
    /// Returns the reason why mutation tests may ignore this site: the comment `// exempt: REASON` on its
    /// line.
    pub fn exempt(&self, sources: &Sources) -> Option<String> {
        let line = |text: &str| {
            let line = text.lines().nth(self.site.line as usize - 1)?;
            Some(line.split_once("// exempt: ")?.1.trim().to_owned())
        };
        match sources.get(&self.site.file) {
            Some(text) => line(text),
            // This is a site of host code, whose source exists where tests run.
            None => line(&std::fs::read_to_string(&self.site.file).ok()?),
        }
    }
}

/// Record of the sites of one driver.
pub struct Sites {
    /// The sites passed so far.
    pub passed: BTreeSet<Passed>,
    /// The site to skip.
    pub skip: Option<Site>,
    print: bool,
    /// Files whose sites are not printed, because they belong to a test and not to the program.
    unlisted: Vec<String>,
}

impl Sites {
    /// Reads the environment: `OMR_EMU_SITES=1` prints the sites outside `unlisted` files, and `OMR_EMU_SKIP=FILE:LINE`
    /// skips one site. Errors if the value of `OMR_EMU_SKIP` is not a site.
    pub fn from_env(unlisted: Vec<String>) -> Result<Sites> {
        let print = std::env::var("OMR_EMU_SITES").is_ok_and(|v| v == "1");
        let skip = match std::env::var("OMR_EMU_SKIP") {
            Ok(text) if !text.is_empty() => Some(text.parse().map_err(|e: Error| e.within("OMR_EMU_SKIP"))?),
            _ => None,
        };
        Ok(Sites { passed: BTreeSet::new(), skip, print, unlisted })
    }

    /// Records a site of host code. Returns true if this site is the one to skip.
    pub fn host(&mut self, at: &Location, wrapper: &str, sources: &Sources) -> bool {
        let site = Site::from(at);
        let skipped = self.skip.as_ref() == Some(&site);
        self.note([Passed { site, wrapper: wrapper.to_owned() }], sources);
        skipped
    }

    /// Records sites, and prints each of them once per process.
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
                // The first newline is needed because a test on one thread leaves its name on an unfinished line.
                print!("\nsite {} {}{reason}\n", passed.site, passed.wrapper);
            }
            self.passed.insert(passed);
        }
    }
}
