//! Named ranges of a device's work, for profilers.

use std::fmt;

use super::backend::{Backend, Device};

impl Device {
    /// Runs `work` in a range that profilers show as `name`. The name is formatted only while ranges are recorded.
    pub fn range<R>(&mut self, name: fmt::Arguments<'_>, work: impl FnOnce(&mut Device) -> R) -> R {
        let before = self.open_ranges();
        self.open_range(name);
        let done = work(self);
        // An error inside `work` may have left its own ranges open.
        while self.open_ranges() > before {
            self.close_range();
        }
        done
    }

    /// Returns true while ranges are recorded.
    pub fn records_ranges(&self) -> bool {
        matches!(&self.backend, Backend::Gpu { driver, .. } if driver.records_ranges())
    }

    /// Opens a range. It is closed by [`Device::close_range`] or at the end of the surrounding [`Device::range`].
    pub fn open_range(&mut self, name: fmt::Arguments<'_>) {
        if let Backend::Gpu { driver, open_ranges, .. } = &mut self.backend
            && driver.records_ranges()
        {
            driver.range_push(&name.to_string());
            *open_ranges += 1;
        }
    }

    /// Closes the innermost open range.
    pub fn close_range(&mut self) {
        if let Backend::Gpu { driver, open_ranges, .. } = &mut self.backend
            && *open_ranges > 0
        {
            driver.range_pop();
            *open_ranges -= 1;
        }
    }

    fn open_ranges(&self) -> usize {
        if let Backend::Gpu { open_ranges, .. } = &self.backend { *open_ranges } else { 0 }
    }
}
